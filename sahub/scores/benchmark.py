"""What a benchmark tells about its scores: metrics per subset, and the number a whole data set gets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sahub.errors import ScoreError

# (prediction, references in the benchmark's own shape, classes of a classification) -> score in [0, 1]
Metric = Callable[[str, Any, Sequence[str] | None], float]
Row = Mapping[str, Any]  # prediction, references, and what the benchmark groups by


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One entry of the table in sahub.scores."""

    subsets: Mapping[str, tuple[str, ...]]  # subset -> names of its metrics, the one that stands for it first
    metrics: Mapping[str, Metric]
    # (subset, rows, classes) -> the official number of a data set, or several by name
    aggregate: Callable[[str, Sequence[Row], Sequence[str] | None], float | dict[str, float]]


def texts(references: Any) -> tuple[str, ...]:
    """References as texts. Raises ScoreError where there is none, or one that is not text."""
    found = (references,) if isinstance(references, str) else references
    if not isinstance(found, Iterable) or isinstance(found, Mapping | bytes):
        raise ScoreError(f"references={_short(references)}: must be a text or a list of texts")
    found = tuple(found)
    if not found or not all(isinstance(text, str) for text in found):
        raise ScoreError(f"references={_short(references)}: must be at least one text, and only texts")
    return found


def mean(scores: Iterable[float]) -> float:
    """Plain mean, summed in order as the official scorers do. Raises ScoreError for no score."""
    values = list(scores)
    if not values:
        raise ScoreError("rows=[]: must be at least one row")
    return sum(values) / len(values)


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
