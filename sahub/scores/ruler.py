"""RULER: how many of the expected strings an answer contains.

Source   NVIDIA/RULER scripts/eval/evaluate.py and synthetic/constants.py @c3f5e3b
kvpress  deletes control characters, so that a number broken by a line break matches
"""

import re
from collections.abc import Sequence
from typing import Any

from sahub.errors import ScoreError
from sahub.scores.benchmark import Benchmark, Metric, Metrics, Row, all_fit, each, mean, texts

CONTROL = re.compile(r"[\x00-\x1f]")


def string_match_all(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """Share of the references that occur in the prediction, ignoring case; no word boundaries."""
    answer = _clean(prediction)
    return mean([float(reference.lower() in answer) for reference in texts(references)])


def string_match_part(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where any of the references occurs in the prediction, ignoring case; no word boundaries."""
    answer = _clean(prediction)
    return float(any(reference.lower() in answer for reference in texts(references)))


def _clean(prediction: str) -> str:
    # A control character becomes a line break, so a number broken by one does not match.
    return CONTROL.sub("\n", prediction.strip()).strip().lower()


def _kvpress(metric: Metric) -> Metric:
    def without_control(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
        return metric(CONTROL.sub("", prediction.strip()), references, classes)

    return without_control


def aggregate(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> float:
    """Task score in percent, 2 decimals."""
    (metric,) = metrics.values()
    return round(mean(each(metric, rows, classes)) * 100, 2)


def ruler_length_average(scores: Sequence[float]) -> dict[str, float]:
    """One model's scores at rising lengths (officially 4k .. 128k) as three averages in percent, 1 decimal.

    avg is plain, wAvg_inc weighs the lengths 1, 2, 3, ..., wAvg_dec the other way round. Raises ScoreError for none.
    """
    if not scores:
        raise ScoreError("scores=[]: must be one score per length")
    rising = range(1, len(scores) + 1)

    def weighted(weights: Sequence[int]) -> float:
        return round(sum(w * s for w, s in zip(weights, scores, strict=True)) / sum(weights), 1)

    return {"avg": weighted([1] * len(scores)), "wAvg_inc": weighted(rising), "wAvg_dec": weighted(rising[::-1])}


_RETRIEVAL = [f"niah_single_{i}" for i in (1, 2, 3)] + [f"niah_multikey_{i}" for i in (1, 2, 3)]
_ALL = (*_RETRIEVAL, "niah_multivalue", "niah_multiquery", "vt", "cwe", "fwe")

_SUBSETS: dict[str, Metrics] = {
    **{subset: {"string_match_all": string_match_all} for subset in _ALL},
    **{subset: {"string_match_part": string_match_part} for subset in ("qa_1", "qa_2")},
}

BENCHMARK = Benchmark(
    subsets=_SUBSETS,
    on_request={
        subset: {"kvpress": _kvpress(metric)} for subset, metrics in _SUBSETS.items() for metric in metrics.values()
    },
    checks=dict.fromkeys(
        _SUBSETS, all_fit(lambda text: not CONTROL.search(text.replace("\n", "")), "have no control characters")
    ),
    aggregate=aggregate,
)
