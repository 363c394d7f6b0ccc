"""The keys of what a cell is made of: model, task, builder, objective, and the protocol they meet under."""

from dataclasses import dataclass, field
from typing import Any

from sahub.config.fields import key
from sahub.fidelities import FIDELITIES
from sahub.measures import MEASURES
from sahub.measures.combined_score import ERRORS

OF_TASK = ("template", "truncation", "newline_stops")  # of the protocol, what a task may set
SHARES = {"density": "density", "kv": "kv_density"}  # objective.budget_of -> the measure that is the budget
DEVICE = r"auto|cpu|mps|cuda(:\d+)?"


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
    revision: str | None = key(None, "Hub revision of the data: commit, tag or branch (null: what the cache holds)")
    config: str | None = key(None, "configuration of the Hub data, the folder of their files (null: the subset)")
    split: str = key("test", "split of the Hub data; search and validation examples are split from it")
    files: str | None = key(
        None, "glob over the files of the Hub data (null: those in the folder of the configuration)"
    )
    where: dict[str, Any] = key({}, "column and value of the rows that are the task's (empty: all of the files)")
    licence: str | None = key(None, "licence of the data")
    source: str | None = key(
        None,
        "where examples come from, for benchmarks that have both (null: files where task.path is given, else as the "
        "benchmark's page says)",
        choices=("generated", "files"),
    )
    length: int | None = key(
        None, "length of generated prompts, and of stored ones (null: max_context_length)", unit="tokens", at_least=1
    )
    options: dict[str, Any] = key({}, "parameters of the generator or loader, such as num_examples")
    protocol: dict[str, Any] = key(
        {}, "how the authors ask it, where protocol.* is not set: template, truncation, newline_stops"
    )


@dataclass(frozen=True, kw_only=True)
class Builder:
    """A stack of stages with its search space; the files of conf/builder set these."""

    description: str = key("", "one line about the builder")
    stages: dict[str, Any] = key(
        {}, "stages in order: label -> fields of its method (builder.stages.quest.page_size=32)"
    )
    search: dict[str, Any] = key({}, "free fields, mirrors stages: choices, or low, high, step, log")
    grid: dict[str, Any] = key(
        {}, "free fields of space=grid, mirrors stages: a list of values, or such lists by target in %"
    )
    limits: dict[str, Any] = key({}, "upper bounds, such as aux_bits; a point above one is rejected before any work")


@dataclass(frozen=True, kw_only=True)
class Weights:
    """value = error * measure + density * d + excess * over + above_half * (d > 0.5), as search.objective has it."""

    error: float = key(0.99, "weight of the measure", at_least=0)
    density: float = key(0.01, "weight of the density", at_least=0)
    excess: float = key(10.0, "weight of the density above the target, and of the loss above the largest", at_least=0)
    above_half: float = key(0.0, "added when more than half of the keys are kept", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Frontier:
    """Budgets for each of which one search finds a winner."""

    density: tuple[float, ...] = key((), "shares of the keys", unit="share of valid keys", above=0, at_most=1)
    aux_bits: tuple[float, ...] = key((), "index bits", unit="bits per key and KV head", at_least=0)


@dataclass(frozen=True, kw_only=True)
class Objective:
    """What a search minimises, and under which targets."""

    density: float | None = key(
        None, "most keys that may be read (null: no target)", unit="share of valid keys", above=0, at_most=1
    )
    budget_of: str = key(
        "density",
        "whose share of the keys the target bounds: a query head's (density), or that of a KV head, which reads what "
        "any of its query heads attends to (kv); then the budget is searched from an eighth of the target",
        choices=tuple(SHARES),
    )
    aux_bits: float | None = key(None, "most index bits (null: no target)", unit="bits per key and KV head", at_least=0)
    measure: str = key(
        "answer_left",
        "what is minimised, and the cheapest fidelity that has it: "
        + ", ".join(f"{name} ({measure.fidelity})" for name, measure in MEASURES.items())
        + "; combined_score is e + penalty * (1 - benchmark_score)",
        choices=tuple(MEASURES),
    )
    loss: str | None = key(
        None,
        "measure that largest_loss bounds, such as tokens_changed (null: none)",
        choices=tuple(name for name, measure in MEASURES.items() if not measure.of_measures),
    )
    largest_loss: float | None = key(
        None,
        "highest value of objective.loss with which a trial can win; of benchmark_score, of 1 - score",
        at_least=0,
    )
    error: str = key(
        "relative_l2", "e of combined_score: relative error of the attention output, or mse", choices=tuple(ERRORS)
    )
    penalty: float = key(1.0, "weight of the lost benchmark score in combined_score", at_least=0)
    function: dict[str, Any] = key(
        {},
        "your own objective, in place of measure and weights: {_target_: my_module.my_function, ...}, called with the "
        "measures and the other keys, gives a number; lower is better",
    )
    needs: str = key(
        "teacher",
        "fidelity that your function needs: generate, where it reads benchmark_score",
        choices=tuple(FIDELITIES),
    )
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
    budget_search: Any = key(
        "${eighths:${objective.budget_of},${objective.budget_max}}",
        "range in which the budget is searched (null: it stays as it is)",
    )
    weights: Weights = field(default_factory=Weights)
    frontier: Frontier = field(default_factory=Frontier)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """Everything beside the method that moves a score."""

    question: str = key("sparse", "attention of the question chunk", choices=("sparse", "dense"))
    dense_layers: tuple[int, ...] = key((), "layers that stay dense", at_least=0)
    template: str = key(
        "${oc.select:task.protocol.template,auto}",
        "chat template: the model's, where it has one (auto), or none; as task.protocol says, else auto",
        choices=("auto", "none"),
    )
    date: str = key(
        "2024-07-26",
        "the day that a chat template is told it is, where it asks",
        pattern=r"\d{4}-\d\d-\d\d",
        expected="a day, YYYY-MM-DD",
    )
    thinking: str = key(
        "off",
        "a thought before the answer: closed, by the chat template or by its tag (off), or left to the model (on)",
        choices=("off", "on"),
    )
    truncation: str = key(
        "${oc.select:task.protocol.truncation,middle}",
        "how a context that is too long is cut: its middle is taken out, or its head alone is kept, followed by the "
        "mark that its data have for that; as task.protocol says, else middle",
        choices=("middle", "head"),
    )
    newline_stops: bool = key(
        "${oc.select:task.protocol.newline_stops,false}",
        "a line break ends an answer, which has one token at least; as task.protocol says, else false",
    )
    query_aware: bool = key(False, "the question is part of the context: it is read densely, and by eviction methods")
    replay_rows: str = key(
        "answer",
        "what a replay asks of a stack: the rows that give the tokens of the answer, or those of the question too",
        choices=("answer", "all"),
    )
    trace_mib: int = key(
        1024,
        "most that a trace for replay takes; beyond it layers are left out, the others spread evenly",
        unit="MiB",
        at_least=1,
    )
    measure_error: str = key(
        "8",
        "decoding steps at which attention errors are measured, in a search only where its objective reads them",
        pattern=r"all|off|[1-9]\d*",
        expected="all, off, or N for every Nth step",
    )
