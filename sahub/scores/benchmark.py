"""What a benchmark tells about its scores: metrics per subset, and the number a whole data set gets."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sahub.errors import ScoreError

# (prediction, references in the benchmark's own shape, classes of a classification) -> score in [0, 1]
Metric = Callable[[str, Any, Sequence[str] | None], float]
Metrics = Mapping[str, Metric]  # by name
# (references, classes): raises ScoreError for references that cannot be scored, or that no answer can match
Check = Callable[[Any, Sequence[str] | None], None]
Row = Mapping[str, Any]  # prediction, references, and what the benchmark groups by
Number = float | dict[str, float]  # of a data set: one, or several by name


@dataclass(frozen=True, kw_only=True)
class Benchmark:
    """One entry of the table in sahub.scores."""

    subsets: Mapping[str, Metrics]  # subset -> its metrics, the one that stands for it first
    # metrics that are computed only where they are asked for by name: costly ones, and `kvpress` where its rules differ
    # (None: it has none)
    on_request: Mapping[str, Mapping[str, Metric | None]] = field(default_factory=dict)
    checks: Mapping[str, Check] = field(default_factory=dict)  # of the references of a subset, before any work
    # (metrics, rows, classes) -> the official number of a data set
    aggregate: Callable[[Metrics, Sequence[Row], Sequence[str] | None], Number]


def texts(references: Any) -> tuple[str, ...]:
    """References as texts. Raises ScoreError where there is none, or one that is not text."""
    found = (references,) if isinstance(references, str) else references
    if not isinstance(found, Iterable) or isinstance(found, Mapping | bytes):
        raise ScoreError(f"references={short(references)}: must be a text or a list of texts")
    found = tuple(found)
    if not found or not all(isinstance(text, str) for text in found):
        raise ScoreError(f"references={short(references)}: must be at least one text, and only texts")
    return found


def best(compare: Callable[[str, str], float]) -> Metric:
    """The metric that compares with every reference and takes the highest score."""

    def metric(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
        return max(compare(prediction, reference) for reference in texts(references))

    return metric


def all_fit(fits: Callable[[str], Any], must: str) -> Check:
    """A check that every reference is of a form, without which it is refused."""

    def check(references: Any, classes: Sequence[str] | None = None) -> None:
        if wrong := [text for text in texts(references) if not fits(text)]:
            raise ScoreError(f"references={short(wrong[0])}: must {must}")

    return check


def one_fits(fits: Callable[[str], Any], must: str) -> Check:
    """A check that an answer can match one of the references at least."""

    def check(references: Any, classes: Sequence[str] | None = None) -> None:
        if not any(map(fits, texts(references))):
            raise ScoreError(f"references={short(references)}: must {must}, or no answer can match")

    return check


def each(metric: Metric, rows: Sequence[Row], classes: Sequence[str] | None) -> list[float]:
    """The score of every row. Raises ScoreError with the row's number, and for no rows."""
    if not rows:
        raise ScoreError("rows=[]: must be at least one row")
    found = []
    for number, row in enumerate(rows):
        try:
            found.append(metric(row["prediction"], row["references"], classes or row.get("all_classes")))
        except ScoreError as error:
            raise ScoreError(f"rows[{number}]: {error}") from None
    return found


def mean(scores: Sequence[float]) -> float:
    """Plain mean, summed in order as the official scorers do. Raises ScoreError for no score."""
    if not scores:
        raise ScoreError("scores=[]: must be at least one score")
    return sum(scores) / len(scores)


def percent(scores: Sequence[float]) -> float:
    """Plain mean in percent; multiplied before it is divided, as officially."""
    return 100 * sum(scores) / len(scores)


def plain(value: Any) -> Any:
    """The same without numpy: columns read with pandas hold its arrays and numbers, also inside of each other."""
    if hasattr(value, "tolist"):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {key: plain(held) for key, held in value.items()}
    return type(value)(map(plain, value)) if type(value) in (list, tuple) else value


def short(value: Any) -> str:
    """A value for a message."""
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = f"a huge {type(value).__name__}"
    return text if len(text) <= 80 else f"{text[:77]}..."
