"""LongBench and LongBench-E: token F1, ROUGE-L, classification, counting, retrieval and code similarity.

Source   THUDM/LongBench LongBench/metrics.py and LongBench/eval.py @2e00731 (rouge 1.0.1, jieba 0.42.1, fuzzywuzzy on
         difflib)
Differs  ROUGE-L of very long sentences (see rouge.py); a line of code too long for difflib is an error
kvpress  strips all white space on the left of an answer, indentation of code included, before the first line is taken
"""

import math
import re
from collections import Counter
from collections.abc import Sequence
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from sahub.errors import ScoreError
from sahub.scores.benchmark import (
    Benchmark,
    Check,
    Metric,
    Metrics,
    Row,
    all_fit,
    best,
    each,
    one_fits,
    percent,
    short,
    texts,
)  # fmt: skip
from sahub.scores.rouge import rouge_l
from sahub.scores.words import cut_zh, f1, f1_zh

DIGITS = re.compile(r"\d+")
MAX_PAIRS = 2_000_000  # equal (predicted, reference) characters of a line of code: bounds difflib to seconds
BUCKETS = ("0-4k", "4-8k", "8k+")


def classification(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 / labels named in the answer where the expected one is among them, else 0.

    A label inside the expected one is dropped, but the walk that drops it then misses the label that follows: the list
    is shortened while it is read, and official scores depend on it.
    """
    labels = _labels(classes)
    return max(_share_of_labels([label for label in labels if label in prediction], gold) for gold in texts(references))


def _share_of_labels(named: list[str], gold: str) -> float:
    place = 0
    while place < len(named):
        if named[place] in gold and named[place] != gold:
            del named[named.index(named[place])]
        place += 1
    return 1 / len(named) if gold in named else 0.0


def _labels(classes: Any) -> list[str]:
    labels = [] if classes is None or isinstance(classes, str) else list(classes)
    if not labels or not all(isinstance(label, str) for label in labels):
        raise ScoreError(f"classes={short(classes)}: must be the labels of the classification, as a list of texts")
    return labels


def _count(prediction: str, reference: str) -> float:
    """Share of the answer's numbers that are the expected one, digit by digit."""
    numbers = DIGITS.findall(prediction)
    return numbers.count(reference) / len(numbers) if numbers else 0.0


def _retrieval(word: str) -> Metric:
    number = re.compile(rf"{word}(\d+)")

    def compare(prediction: str, reference: str) -> float:
        found = number.search(reference)
        if not found:
            raise ScoreError(f"references={short(reference)}: must name a paragraph, as `{word}7`")
        return _count(prediction, found[1])

    return best(compare)


def _rouge_l(prediction: str, reference: str) -> float:
    return rouge_l(prediction, reference).f


def _rouge_l_zh(prediction: str, reference: str) -> float:
    return rouge_l(" ".join(cut_zh(prediction)), " ".join(cut_zh(reference))).f


def _code_similarity(prediction: str, reference: str) -> float:
    """difflib's ratio, in whole percents, of the expected line and the first one without a back-tick, # or //."""
    lines = prediction.lstrip("\n").split("\n")
    line = next((line for line in lines if "`" not in line and "#" not in line and "//" not in line), "")
    if line == reference:
        return 1.0
    if not line or not reference:
        return 0.0
    # The ratio is at most 2 min / sum: below half a percent it rounds to 0, whatever the characters are.
    if 400 * min(len(line), len(reference)) <= len(line) + len(reference):
        return 0.0
    ours, theirs = Counter(line), Counter(reference)
    rare = len(reference) // 100 + 1 if len(reference) >= 200 else math.inf  # difflib leaves out what is not
    if sum(ours[c] * count for c, count in theirs.items() if count <= rare) > MAX_PAIRS:
        raise ScoreError(f"a line of {len(line)} characters is too long to compare with one of {len(reference)}")
    return round(100 * SequenceMatcher(None, line, reference).ratio()) / 100


def _first_line(metric: Metric) -> Metric:
    def on_first_line(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
        return metric(prediction.lstrip("\n").split("\n")[0], references, classes)

    return on_first_line


def _kvpress(metric: Metric) -> Metric:
    def stripped(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
        return metric(prediction.lstrip(), references, classes)

    return stripped


def aggregate(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> float:
    """Task score in percent, 2 decimals."""
    (metric,) = metrics.values()
    return round(percent(each(metric, rows, classes)), 2)


def bucket(length: float) -> str:
    """The bucket of LongBench-E that a length in words belongs to."""
    return BUCKETS[(length >= 4000) + (length >= 8000)]


def aggregate_e(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> dict[str, float]:
    """Percent, 2 decimals, of the rows whose `length` is below 4000, below 8000, and the rest; NaN where there is none.

    Raises ScoreError for a row without a length.
    """
    (metric,) = metrics.values()
    buckets: dict[str, list[float]] = {name: [] for name in BUCKETS}
    for number, (row, score) in enumerate(zip(rows, each(metric, rows, classes), strict=True)):
        length = row.get("length")
        if isinstance(length, bool) or not isinstance(length, int | float) or not math.isfinite(length):
            raise ScoreError(f"rows[{number}]: length={short(length)}: must be a number, the row's length in words")
        buckets[bucket(length)].append(score)
    # numpy's mean and rounding, as officially: their last digits are not Python's.
    return {name: float(np.round(100 * np.mean(found), 2)) if found else math.nan for name, found in buckets.items()}


_METRICS: dict[str, Metric] = {
    "f1": best(f1),
    "f1_zh": best(f1_zh),
    "rouge_l": best(_rouge_l),
    "rouge_l_zh": best(_rouge_l_zh),
    "classification": classification,
    "count": best(_count),
    "retrieval": _retrieval("Paragraph "),
    "retrieval_zh": _retrieval("段落"),
    "code_similarity": best(_code_similarity),
}
_TASKS = {
    "narrativeqa": "f1",
    "qasper": "f1",
    "multifieldqa_en": "f1",
    "multifieldqa_zh": "f1_zh",
    "hotpotqa": "f1",
    "2wikimqa": "f1",
    "musique": "f1",
    "dureader": "rouge_l_zh",
    "gov_report": "rouge_l",
    "qmsum": "rouge_l",
    "multi_news": "rouge_l",
    "vcsum": "rouge_l_zh",
    "trec": "classification",
    "triviaqa": "f1",
    "samsum": "rouge_l",
    "lsht": "classification",
    "passage_count": "count",
    "passage_retrieval_en": "retrieval",
    "passage_retrieval_zh": "retrieval_zh",
    "lcc": "code_similarity",
    "repobench-p": "code_similarity",
}
_ONE_LINE = ("trec", "triviaqa", "samsum", "lsht")
_IN_E = (
    "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa", "samsum",
    "passage_count", "passage_retrieval_en", "lcc", "repobench-p",
)  # fmt: skip


def _named(references: Any, classes: Sequence[str] | None = None) -> None:
    """The labels of the classification hold one of the references."""
    if not {*_labels(classes)} & {*texts(references)}:
        raise ScoreError(f"references={short(references)}: must be one of the classes, {short(classes)}")


_CHECKS: dict[str, Check] = {
    "trec": _named,
    "lsht": _named,
    "passage_count": one_fits(DIGITS.fullmatch, "be a number in digits"),
    "passage_retrieval_en": all_fit(re.compile(r"Paragraph (\d+)").search, "name a paragraph, as `Paragraph 7`"),
    "passage_retrieval_zh": all_fit(re.compile(r"段落(\d+)").search, "name a paragraph, as `段落7`"),
}


def _metric(task: str) -> Metric:
    metric = _METRICS[_TASKS[task]]
    return _first_line(metric) if task in _ONE_LINE else metric


BENCHMARK = Benchmark(
    subsets={task: {name: _metric(task)} for task, name in _TASKS.items()},
    on_request={task: {"kvpress": _kvpress(_metric(task))} for task in _TASKS},
    checks=_CHECKS,
    aggregate=aggregate,
)
BENCHMARK_E = Benchmark(
    subsets={task: BENCHMARK.subsets[task] for task in _IN_E},
    on_request={task: BENCHMARK.on_request[task] for task in _IN_E},
    checks={task: check for task, check in _CHECKS.items() if task in _IN_E},
    aggregate=aggregate_e,
)
