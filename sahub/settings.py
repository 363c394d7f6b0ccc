"""Every key that can be set: type, default, unit, range and one line of help.

These frozen dataclasses are the schema of the configuration, the source of `--help` and the values that code reads.
"""

from collections.abc import Sequence
from dataclasses import MISSING, dataclass, field
from typing import Any

PHASES = ("search", "validate")
FIDELITIES = ("teacher", "generate")
MEASURES = ("answer_kl", "answer_nll", "attention_error", "benchmark_score")
DEVICE = r"auto|cpu|mps|cuda(:\d+)?"


def key(
    default: Any = MISSING,
    help: str = "",
    *,
    unit: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: Sequence[str] = (),
    pattern: str = "",
    expected: str = "",
) -> Any:
    """A field with what `--help` says of it and what must hold of its value; null is legal where the type allows it."""
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "choices": tuple(choices)}
    metadata = {"help": help, "unit": unit, "pattern": pattern, "expected": expected, **limits}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)


@dataclass(frozen=True, kw_only=True)
class Search:
    """How one search is run, and on which examples."""

    num_samples: int = key(50, "points of the space that are tried", unit="trials", at_least=1)
    batch: int = key(
        8, "points that are asked for before any of them is told; results depend on it", unit="trials", at_least=1
    )
    seed: int = key(0, "seed of the sampler and of every random choice", at_least=0)
    pin: bool = key(True, "stage fields typed on the command line leave the space (false: they are the first guess)")
    fidelity: str = key(
        "teacher",
        "what the trials are measured by first: teacher-forced answers, or generated ones",
        choices=FIDELITIES,
    )
    promote: int = key(4, "best points that generate answers after a teacher-forced search", unit="trials", at_least=0)
    calibrate: int = key(
        4,
        "points spread over the ranking that do so too, to see how well cheap predicts dear",
        unit="trials",
        at_least=0,
    )
    timeout_s: float = key(900.0, "longest a trial may take", unit="seconds", above=0)
    time_budget_s: float | None = key(None, "longest a search may take (null: no limit)", unit="seconds", above=0)
    max_requests: int = key(10, "questions a trial is measured on", unit="questions", at_least=1)
    max_context_length: int = key(
        8192, "longest context while searching; generated tasks have this length", unit="tokens", at_least=1
    )
    max_new_tokens: int = key(20, "most tokens of a generated answer while searching", unit="tokens", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Validate:
    """On which examples winners are validated; no search has seen these."""

    max_requests: int | None = key(None, "questions per task (null: all there are)", unit="questions", at_least=1)
    max_context_length: int = key(64000, "longest context; generated tasks have this length", unit="tokens", at_least=1)
    max_new_tokens: int | None = key(
        None, "most tokens of an answer (null: the task's own number)", unit="tokens", at_least=1
    )
    timeout_s: float = key(7200.0, "longest the validation of a cell may take", unit="seconds", above=0)
    compare_default: bool = key(True, "also validate the builder's own default configuration")


@dataclass(frozen=True, kw_only=True)
class Model:
    """Which model, and how it is loaded."""

    name: str | None = key(None, "name in results (null: the last part of model.path)")
    path: str | None = key("???", "folder, or Hub name such as org/name (null: the weights inside the package)")
    revision: str | None = key(None, "Hub revision (null: the newest)")
    device: str = key("auto", "where the model runs", pattern=DEVICE, expected="auto, cpu, mps, cuda or cuda:N")
    dtype: str = key(
        "auto", "type of the weights (auto: as stored)", choices=("auto", "float32", "float16", "bfloat16")
    )
    device_map: Any = key(None, "transformers' device_map, for a model that one device cannot hold")
    attn_implementation: str = key(
        "auto", "attention of the dense passes", choices=("auto", "sdpa", "flash_attention_2", "eager")
    )
    trust_remote_code: bool = key(False, "let a Hub model run its own Python code")
    max_context_length: int | None = key(
        None, "longest text the model can read (null: as its config says)", unit="tokens", at_least=1
    )


@dataclass(frozen=True, kw_only=True)
class Task:
    """Which questions about which texts; the files of conf/task set these."""

    benchmark: str = key(help="benchmark, the module sahub.tasks.<benchmark>")
    subset: str = key(help="subset of the benchmark")
    metric: str | None = key(None, "score of an answer (null: the benchmark's own)")
    max_new_tokens: int | None = key(None, "most tokens of an answer, as the benchmark says", unit="tokens", at_least=1)
    version: int = key(1, "counts changes that can move a score", at_least=1)
    path: str | None = key(None, "local folder with the data (null: the datasets cache)")
    dataset: str | None = key(None, "Hub name of the data")
    revision: str | None = key(None, "Hub revision of the data")
    options: dict[str, Any] = key({}, "parameters of the generator or loader, such as num_examples")


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A stack of stages with its search space; the files of conf/builder set these."""

    description: str = key("", "one line about the builder")
    stages: dict[str, Any] = key(
        {}, "stages in order: label -> fields of its method (builder.stages.quest.page_size=32)"
    )
    search: dict[str, Any] = key({}, "free fields, mirrors stages: choices, or low, high, step, log")
    limits: dict[str, Any] = key({}, "upper bounds, such as aux_bits; a point above one is rejected before any work")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """value = error * measure + density * d + excess * max(0, d - target) + above_half * (d > 0.5)."""

    error: float = key(0.99, "weight of the measure", at_least=0)
    density: float = key(0.01, "weight of the density", at_least=0)
    excess: float = key(10.0, "weight of the density above the target", at_least=0)
    above_half: float = key(0.0, "added when more than half of the keys are kept", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a search minimises, and under which targets."""

    density: float | None = key(
        None, "most keys that may be read (null: no target)", unit="share of valid keys", above=0, at_most=1
    )
    aux_bits: float | None = key(None, "most index bits (null: no target)", unit="bits per key and KV head", at_least=0)
    measure: str = key("answer_kl", "the error that is minimised", choices=MEASURES)
    budget: Any = key(
        "${objective.density}",
        "keys that builders fill up to (the target, where there is one)",
        unit="share of valid keys",
        above=0,
        at_most=1,
    )
    budget_max: Any = key(
        "${objective.budget}",
        "highest budget that a search may try",
        unit="share of valid keys",
        above=0,
        at_most=1,
    )
    budget_search: Any = key(None, "range in which the budget is searched (null: it stays as it is)")
    weights: Weights = field(default_factory=Weights)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything beside the method that moves a score."""

    question: str = key("sparse", "attention of the question chunk", choices=("sparse", "dense"))
    dense_layers: tuple[int, ...] = key((), "layers that stay dense", at_least=0)
    template: str = key("auto", "chat template (auto: the model's, where it has one)", choices=("auto", "none"))
    truncation: str = key(
        "middle", "what is cut from a context that is too long: its middle, or its head", choices=("middle", "head")
    )
    measure_error: str = key(
        "8",
        "decoding steps at which attention errors are measured",
        pattern=r"all|off|[1-9]\d*",
        expected="all, off, or N for every Nth step",
    )


@dataclass(frozen=True, kw_only=True)
class Doctor:
    """What a model is asked before it is used; conf/doctor.yaml sets the tasks and lengths."""

    tasks: tuple[str, ...] = key((), "tasks that the model answers densely ([]: none)")
    lengths: tuple[int, ...] = key((), "lengths at which it does so", unit="tokens", at_least=1)
    requests: int = key(20, "questions per task and length", unit="questions", at_least=1)
    max_new_tokens: int = key(48, "most tokens of an answer", unit="tokens", at_least=1)
    seed: int = key(0, "seed of the questions", at_least=0)
    enough: float = key(
        0.5, "least dense accuracy with which a task can tell methods apart", unit="share", at_least=0, at_most=1
    )
    timing_tokens: int = key(1000, "length of the text that costs are measured on", unit="tokens", at_least=16)


@dataclass(frozen=True, kw_only=True)
class Compute:
    """Where the work is done."""

    name: str = key("inline", "in this process", choices=("inline",))
    threads: int | None = key(None, "CPU threads of torch (null: torch decides)", unit="threads", at_least=1)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """The whole configuration of a cell."""

    phases: tuple[str, ...] = key(PHASES, "what is done, in this order", choices=PHASES)
    search: Search = field(default_factory=Search)
    validate: Validate = field(default_factory=Validate)
    model: Model = field(default_factory=Model)
    task: Task = field(default_factory=lambda: Task(benchmark="???", subset="???"))
    builder: Builder = field(default_factory=Builder)
    objective: Objective = field(default_factory=Objective)
    protocol: Protocol = field(default_factory=Protocol)
    compute: Compute = field(default_factory=Compute)
    doctor: Doctor = field(default_factory=Doctor)
    configs: str | None = key(None, "`validate` only: validate the winners of this run directory, or `latest`")
    results_dir: str = key(".", "folder in which outputs/<time> and multirun/<time> are made")
    cache_dir: str | None = key(
        None, "folder of finished work, which later runs use (null: $XDG_CACHE_HOME/sahub, or ~/.cache/sahub)"
    )
    force: bool = key(False, "do all work again, whatever the cache holds")
    dry_run: bool = key(False, "say what would be run, and stop")
