"""Official scores: `score` of one answer, `aggregate` of a data set; one entry per benchmark.

Names are `benchmark/subset`, as in conf/task. To add a benchmark, write one function per metric and list it here.
"""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any

from sahub.errors import ConfigError, ScoreError
from sahub.scores import loogle, ruler
from sahub.scores.benchmark import Benchmark, Row
from sahub.scores.ruler import ruler_length_average

__all__ = ["BENCHMARKS", "aggregate", "metrics_of", "ruler_length_average", "score"]

BENCHMARKS: dict[str, Benchmark] = {"loogle": loogle.BENCHMARK, "ruler": ruler.BENCHMARK}


def score(
    task: str, prediction: str, references: Any, *, classes: Sequence[str] | None = None, metric: str | None = None
) -> float:
    """The official score of one answer, in [0, 1].

    `references` have the benchmark's own shape: a text, a list of texts, for cloze the masks as a mapping or JSON text.
    `metric` is one of metrics_of(task), None the first of them; `classes` are the labels of a classification task.

    Raises ConfigError for an unknown task or metric, ScoreError for a prediction or references of another shape.
    """
    benchmark, subset = _find(task)
    names = benchmark.subsets[subset]
    name = names[0] if metric is None else metric
    if name not in names:
        raise ConfigError(f"metric={name}: must be one of {', '.join(names)} for {task}{_close(name, names)}")
    return benchmark.metrics[name](_text(prediction), _plain(references), classes)


def aggregate(task: str, rows: Sequence[Row], *, classes: Sequence[str] | None = None) -> float | dict[str, float]:
    """The official number of a data set, or all of them by name, in the benchmark's own unit.

    RULER: percent, 2 decimals. LooGLE: fractions, {metric: value}. A row is a mapping with `prediction`, `references`
    and what the benchmark groups by. Raises as `score`, and ScoreError for no rows.
    """
    benchmark, subset = _find(task)
    for number, row in enumerate(rows):
        if absent := [name for name in ("prediction", "references") if name not in row]:
            raise ScoreError(f"rows[{number}]: must have {' and '.join(absent)}")
    plain = [{**row, "prediction": _text(row["prediction"]), "references": _plain(row["references"])} for row in rows]
    return benchmark.aggregate(subset, plain, classes)


def metrics_of(task: str) -> tuple[str, ...]:
    """Names of a task's metrics; the first stands for the task. Raises ConfigError for an unknown task."""
    benchmark, subset = _find(task)
    return benchmark.subsets[subset]


def _find(task: str) -> tuple[Benchmark, str]:
    name, _, subset = task.partition("/")
    if name not in BENCHMARKS:
        raise ConfigError(f"task={task}: benchmark must be one of {', '.join(BENCHMARKS)}{_close(name, BENCHMARKS)}")
    subsets = tuple(BENCHMARKS[name].subsets)
    if subset not in subsets:
        choices = ", ".join(f"{name}/{choice}" for choice in subsets)
        raise ConfigError(f"task={task}: must be one of {choices}{_close(task, [f'{name}/{s}' for s in subsets])}")
    return BENCHMARKS[name], subset


def _close(name: str, choices: Any) -> str:
    found = get_close_matches(name, list(choices), n=1)
    return f" (did you mean {found[0]}?)" if found else ""


def _text(prediction: Any) -> str:
    if not isinstance(prediction, str):
        raise ScoreError(f"prediction is a {type(prediction).__name__}: must be text")
    return prediction


def _plain(references: Any) -> Any:
    # Columns read with pandas hold numpy arrays and numbers.
    return references.tolist() if hasattr(references, "tolist") else references
