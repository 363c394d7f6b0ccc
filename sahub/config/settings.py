"""Every key that can be set: type, default, unit, range and one line of help.

These frozen dataclasses are the schema of the configuration, the source of `--help` and the values that code reads.
"""

from dataclasses import dataclass, field

from sahub.config.fields import key
from sahub.config.group_schemas import Builder, Model, Objective, Protocol, Task
from sahub.extensions import members
from sahub.fidelities import FIDELITIES

PHASES = ("search", "validate")
SCOPES = ("task", "global")
SPACES = ("continuous", "grid")
SAMPLERS = tuple(members("search/samplers"))
SCHEDULERS = ("race", "none", "median", "asha")
TRACKERS = ("none", *members("trackers"))
COMPUTES = ("inline", "local", "gpu", "cluster")


@dataclass(frozen=True, kw_only=True)
class Search:
    """How one search is run, and on which examples."""

    num_samples: int = key(50, "points of the space that are tried", unit="trials", at_least=1)
    batch: int = key(
        8, "points that are asked for before any of them is told; results depend on it", unit="trials", at_least=1
    )
    seed: int = key(0, "seed of the sampler and of every random choice", at_least=0)
    pin: bool = key(True, "stage fields typed on the command line leave the space (false: they are the first guess)")
    scope: str = key(
        "task",
        "one search per task, or one for all cells that differ in their task alone, on the mean of their values",
        choices=SCOPES,
    )
    fidelity: str = key(
        "teacher",
        f"what the trials are measured by first: {', or '.join(one.HELP for one in FIDELITIES.values())}",
        choices=tuple(FIDELITIES),
    )
    promote: int = key(4, "best points that generate answers after a teacher-forced search", unit="trials", at_least=0)
    calibrate: int = key(
        4,
        "points spread over the ranking that do so too, to see how well cheap predicts dear",
        unit="trials",
        at_least=0,
    )
    timeout_s: float = key(900.0, "longest a trial may take", unit="seconds", above=0)
    max_concurrent: int | None = key(
        None, "workers that a search may use at once (null: all)", unit="processes", at_least=1
    )
    time_budget_s: float | None = key(None, "longest a search may take (null: no limit)", unit="seconds", above=0)
    max_requests: int = key(
        32, "most questions a trial is measured on; a scheduler may end it earlier", unit="questions", at_least=1
    )
    decide: int = key(
        16,
        "further contexts, which no trial has seen, on which the winner must be no worse than the builder's default, "
        "or the default stays (0: it is not asked); of the promoted, as many of those that trials saw",
        unit="contexts",
        at_least=0,
    )
    max_context_length: int = key(
        8192, "longest context while searching; generated tasks have this length", unit="tokens", at_least=1
    )
    max_new_tokens: int = key(20, "most tokens of a generated answer while searching", unit="tokens", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Sampler:
    """Which points a search tries after the builder's default; a space of fewer than num_samples points is listed."""

    name: str = key(
        "tpe",
        "a model of what was good (tpe), at random, every combination (grid), or a genetic algorithm (nsga2)",
        choices=SAMPLERS,
    )
    n_startup_trials: int | None = key(
        None, "random points before the model is used (tpe; null: search.batch)", unit="trials", at_least=0
    )
    multivariate: bool = key(True, "model the fields together, not one by one (tpe)")
    population_size: int | None = key(
        None, "points of a population (nsga2; null: search.batch)", unit="trials", at_least=2
    )
    points: int = key(5, "values that a range is cut into (grid)", unit="values", at_least=2)


@dataclass(frozen=True, kw_only=True)
class Scheduler:
    """Which trials end early; decided once a whole generation has seen the same contexts."""

    name: str = key(
        "race",
        "which trials end early: those surely worse than the best so far, paired by context (race), none, those worse "
        "than the median so far, or all but the best 1/eta so far (asha)",
        choices=SCHEDULERS,
    )
    first: int = key(
        6, "contexts, with their questions, that a trial sees before the first decision", unit="contexts", at_least=1
    )
    eta: int = key(
        2, "each decision comes after so many times as many contexts; asha keeps 1 trial of as many", at_least=2
    )


@dataclass(frozen=True, kw_only=True)
class Validate:
    """On which examples winners are validated; no search has seen these."""

    max_requests: int | None = key(None, "questions per task (null: all there are)", unit="questions", at_least=1)
    max_context_length: int = key(64000, "longest context; generated tasks have this length", unit="tokens", at_least=1)
    max_new_tokens: int | None = key(
        None, "most tokens of an answer (null: the task's own number)", unit="tokens", at_least=1
    )
    timeout_s: float = key(7200.0, "longest the validation of a cell may take", unit="seconds", above=0)
    max_concurrent: int | None = key(
        4, "workers that a validation may use at once (null: all)", unit="processes", at_least=1
    )
    margin: float = key(
        0.05, "loss to dense that a winner stays below to be called lossless", unit="score", above=0, at_most=1
    )
    compare_default: bool = key(True, "also validate the builder's own default configuration")
    compare_with: tuple[str, ...] = key((), "builders of the run that the others are compared with, paired by context")


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where the work is done."""

    name: str = key(
        "local",
        "in this process (inline), or in workers of this machine (local), its GPUs (gpu), a Ray cluster (cluster)",
        choices=COMPUTES,
    )
    workers: int = key(1, "workers, each with the model loaded (local, cluster)", unit="processes", at_least=1)
    actors_per_gpu: int = key(1, "workers that share a GPU (gpu)", unit="processes", at_least=1)
    gpu_ids: tuple[int, ...] = key((0,), "GPUs that are used (gpu)", at_least=0)
    address: str = key("auto", "address of the Ray cluster (cluster)")
    prefix_mib: int = key(
        4096, "keys and values of contexts that a worker holds; the one in use always", unit="MiB", at_least=0
    )
    offload: str = key(
        "auto",
        "where contexts go that do not fit: host (memory), disk (cache_dir), none (they are prefilled again); "
        "auto: from a GPU to host, else to disk",
        choices=("auto", "host", "disk", "none"),
    )
    threads: int = key(1, "CPU threads of torch in each process; last digits depend on it", unit="threads", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Tracker:
    """Which experiment tracker is told of cells, trials and winners."""

    name: str = key("none", "tracker that runs are logged to, through its own library", choices=TRACKERS)
    project: str = key("sahub", "experiment (mlflow) or project (wandb) that runs belong to")
    uri: str | None = key(None, "folder, database or server of mlflow (null: $MLFLOW_TRACKING_URI, or its own default)")
    dir: str | None = key(None, "folder of the files of tensorboard and wandb (null: the cell's directory)")
    mode: str | None = key(
        None, "mode of wandb (null: $WANDB_MODE, or online)", choices=("online", "offline", "disabled")
    )


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What a model, or with task= a task, is asked before it is used; conf/doctor.yaml sets the tasks and lengths."""

    tasks: tuple[str, ...] = key((), "tasks that the model answers densely ([]: none)")
    lengths: tuple[int, ...] = key((), "lengths at which it does so", unit="tokens", at_least=1)
    requests: int = key(20, "most questions per task and length, and contexts of a task", unit="questions", at_least=1)
    dense: bool = key(True, "answer questions of a task with the model (false: only its tokenizer is used)")
    max_new_tokens: int = key(48, "most tokens of an answer", unit="tokens", at_least=1)
    seed: int = key(0, "seed of the questions", at_least=0)
    enough: float = key(
        0.5, "least dense accuracy with which a task can tell methods apart", unit="share", at_least=0, at_most=1
    )
    timing_tokens: int = key(1000, "length of the text that costs are measured on", unit="tokens", at_least=16)


@dataclass(frozen=True, kw_only=True)
class Bench:
    """On which lengths and how often `bench` measures a decoding step; conf/bench.yaml sets the lengths."""

    lengths: tuple[int, ...] = key((), "keys that a step attends to", unit="tokens", at_least=64)
    rounds: int = key(
        5, "steps of each builder that are measured, in rounds that alternate with dense", unit="steps", at_least=1
    )
    seed: int = key(0, "seed of keys that no text gives, and of what stacks draw", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration of a cell."""

    phases: tuple[str, ...] = key(PHASES, "what is done, in this order", choices=PHASES)
    search: Search = field(default_factory=Search)
    sampler: Sampler = field(default_factory=Sampler)
    scheduler: Scheduler = field(default_factory=Scheduler)
    validate: Validate = field(default_factory=Validate)
    model: Model = field(default_factory=Model)
    task: Task = field(default_factory=lambda: Task(benchmark="???", subset="???"))
    builder: Builder = field(default_factory=Builder)
    objective: Objective = field(default_factory=Objective)
    protocol: Protocol = field(default_factory=Protocol)
    compute: Compute = field(default_factory=Compute)
    tracker: Tracker = field(default_factory=Tracker)
    doctor: Doctor = field(default_factory=Doctor)
    bench: Bench = field(default_factory=Bench)
    compose: tuple[str, ...] = key(
        (), "methods of the stack that builder=compose makes, in order: [sink,local,magic_pig]"
    )
    space: str = key(
        "continuous",
        "what a search tries: the builder's `search`, or its `grid`, the values of the predecessor's search "
        "(a builder without one: its own values alone)",
        choices=SPACES,
    )
    show: str = key(
        "best", "`best` only: the best of what is known, or all winners that match", choices=("best", "all")
    )
    save: str | None = key(None, "`best` only: write the winner as a builder of your own, DIR/builder/NAME.yaml")
    configs: str | None = key(None, "`validate` only: validate the winners of this run directory, or `latest`")
    results_dir: str = key(".", "folder in which outputs/<time> and multirun/<time> are made")
    cache_dir: str | None = key(
        None, "folder of finished work, which later runs use (null: $XDG_CACHE_HOME/sahub, or ~/.cache/sahub)"
    )
    force: bool = key(False, "do all work again, whatever the cache holds")
    dry_run: bool = key(False, "say what would be run, and stop")
