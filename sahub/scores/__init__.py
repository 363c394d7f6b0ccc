"""Official scores: `score` of one answer, `aggregate` of a data set; one entry per benchmark.

Names are `benchmark/subset`, as in conf/task. To add a benchmark, write one function per metric and list it here.
The metric `kvpress` is a task's first metric by the rules of kvpress's evaluation, where these differ.
"""

from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from typing import Any

from sahub import extensions
from sahub.errors import ConfigError, ScoreError
from sahub.scores import headlines, infinite_bench, longbench, longbench_v2, loogle, ruler, zero_scrolls
from sahub.scores.benchmark import Benchmark, Check, Metrics, Number, Row, plain
from sahub.scores.headlines import Headline
from sahub.scores.ruler import ruler_length_average

__all__ = [
    "BENCHMARKS",
    "aggregate",
    "check_metric",
    "headline",
    "metrics_of",
    "primary_metric",
    "reference_check",
    "ruler_length_average",
    "score",
]

BENCHMARKS: dict[str, Benchmark] = {
    "infinite_bench": infinite_bench.BENCHMARK,
    "longbench": longbench.BENCHMARK,
    "longbench_e": longbench.BENCHMARK_E,
    "longbench_v2": longbench_v2.BENCHMARK,
    "loogle": loogle.BENCHMARK,
    "ruler": ruler.BENCHMARK,
    "zero_scrolls": zero_scrolls.BENCHMARK,
}


def score(
    task: str, prediction: str, references: Any, *, classes: Sequence[str] | None = None, metric: str | None = None
) -> float:
    """The official score of one answer, in [0, 1].

    `references` have the benchmark's own shape: a text, a list of texts, a number, for cloze the masks as a mapping or
    JSON text; numpy's arrays and numbers are taken, too. `classes` are the labels of a classification task. `metric` is
    one of metrics_of(task), None the first of them, or `kvpress`: the first by kvpress's rules where these differ.

    Raises ConfigError for an unknown task or metric, ScoreError for a prediction or references of another shape.
    """
    benchmark, subset = _find(task)
    (found,) = _metrics(benchmark, subset, task, metric or primary_metric(task)).values()
    return float(found(_text(prediction), plain(references), plain(classes)))


def aggregate(
    task: str, rows: Sequence[Row], *, classes: Sequence[str] | None = None, metric: str | None = None
) -> Number:
    """The official number of a data set, or all of them by name, in the benchmark's own unit.

    RULER, LongBench, ZeroSCROLLS: percent. LongBench-E: {bucket: percent}. LongBench-v2: {group: percent}. LooGLE:
    {metric: fraction}. InfiniteBench: a fraction. `metric` as in `score`, None for all of metrics_of(task). A row is a
    mapping with `prediction`, `references` and what the benchmark groups by (length, difficulty); it may hold
    `all_classes`. Raises as `score`, and ScoreError for no rows and rows without what is needed.
    """
    benchmark, subset = _find(task)
    metrics = _metrics(benchmark, subset, task, metric)
    for number, row in enumerate(rows):
        if absent := [name for name in ("prediction", "references") if name not in row]:
            raise ScoreError(f"rows[{number}]: must have {' and '.join(absent)}")
        if not isinstance(row["prediction"], str):
            raise ScoreError(f"rows[{number}]: {_no_text(row['prediction'])}")
    return benchmark.aggregate(metrics, [plain(dict(row)) for row in rows], plain(classes))


def headline(benchmark: str, numbers: Mapping[str, Number]) -> Headline:
    """One number for a benchmark from {subset: what `aggregate` gave}, with all columns beside it.

    Raises ConfigError for an unknown benchmark or subset.
    """
    for subset in numbers:
        _find(f"{benchmark}/{subset}")
    found = _benchmark(benchmark)
    if found is None:
        raise ConfigError(f"benchmark={benchmark}: must be one of {', '.join(BENCHMARKS)}")
    return headlines.headline(benchmark, found, numbers)


def reference_check(task: str) -> Check:
    """What raises ScoreError for (references, classes) that a task's metrics cannot use, before any answer is made.

    Raises ConfigError for an unknown task.
    """
    benchmark, subset = _find(task)
    return benchmark.checks.get(subset, lambda references, classes: None)


def metrics_of(task: str) -> tuple[str, ...]:
    """Names of a task's metrics; the first stands for the task. Raises ConfigError for an unknown task."""
    benchmark, subset = _find(task)
    return tuple(benchmark.subsets[subset])


def check_metric(task: str, metric: str | None) -> None:
    """Raise ConfigError where a task has no such metric; None is the first of them."""
    benchmark, subset = _find(task)
    _metrics(benchmark, subset, task, metric)


def primary_metric(task: str) -> str:
    """The metric that stands for a task. Raises ConfigError for an unknown task."""
    return metrics_of(task)[0]


def _metrics(benchmark: Benchmark, subset: str, task: str, metric: str | None) -> Metrics:
    """The metric of that name, or all that are computed without being asked for."""
    metrics = benchmark.subsets[subset]
    if metric is None:
        return metrics
    first = next(iter(metrics))
    known = {**metrics, "kvpress": metrics[first], **benchmark.on_request.get(subset, {})}
    if metric not in known:
        raise ConfigError(f"metric={metric}: must be one of {', '.join(known)} for {task}{_close(metric, known)}")
    found = known[metric]
    if found is None:
        raise ConfigError(f"metric={metric}: {metric} does not score {task}; leave the metric out for the official one")
    return {metric: found}


def _find(task: str) -> tuple[Benchmark, str]:
    name, _, subset = task.partition("/")
    benchmark = _benchmark(name)
    if benchmark is None:
        known = [*BENCHMARKS, *extensions.benchmark_names()]
        raise ConfigError(f"task={task}: benchmark must be one of {', '.join(known)}{_close(name, known)}")
    subsets = tuple(benchmark.subsets)
    if subset not in subsets:
        choices = ", ".join(f"{name}/{choice}" for choice in subsets)
        raise ConfigError(f"task={task}: must be one of {choices}{_close(task, [f'{name}/{s}' for s in subsets])}")
    return benchmark, subset


def _benchmark(name: str) -> Benchmark | None:
    """The scores of a benchmark, ours or another package's."""
    if name in BENCHMARKS:
        return BENCHMARKS[name]
    module = extensions.benchmark(name)
    found: Benchmark | None = None if module is None else module.BENCHMARK
    return found


def _close(name: str, choices: Any) -> str:
    found = get_close_matches(name, list(choices), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _text(prediction: Any) -> str:
    if not isinstance(prediction, str):
        raise ScoreError(_no_text(prediction))
    return prediction


def _no_text(prediction: Any) -> str:
    return f"prediction is a {type(prediction).__name__}: must be text"
