"""ZeroSCROLLS: ROUGE of summaries, token F1, multiple choice, similarity of percentages, order of a list.

Source   tau/zero_scrolls metrics/ @9af1d79 (rouge-score 0.1.2, lifelines 0.30.3, Unidecode 1.4.0)
Differs  accents are folded by anyascii, whose licence is free: equal to Unidecode on all but rare Latin letters
         and on common signs, not on all Greek and Cyrillic letters, other scripts and mathematical signs
kvpress  computes nothing
"""

import re
from bisect import bisect, insort
from collections.abc import Sequence
from functools import partial

from sahub.errors import ScoreError
from sahub.scores.benchmark import (
    Benchmark,
    Metric,
    Metrics,
    Number,
    Row,
    all_fit,
    best,
    each,
    one_fits,
    percent,
    short,
)
from sahub.scores.rouge_score import rouge_l, rouge_n
from sahub.scores.words import bag_f1, normalize

LETTER = re.compile(r"\b[A-D]\b")
# From the beginning of a run of digits, and never back into it: any other way reads long runs again and again.
PERCENTAGE = re.compile(r"(?<!\d)(\d++(?:\.\d++)?)%")
# Signs that Unidecode writes in another way, so that they would fuse with words or be taken for each other.
SIGNS = str.maketrans({
    "\u2014": "--", "\u2015": "--", "\u201a": ",", "\u201e": ",,", "\xb7": "*", "\xd7": "x",
    "\u2190": "-", "\u2192": "-",
    "\xbc": " 1/4", "\xbd": " 1/2", "\xbe": " 3/4", "\u2153": " 1/3 ", "\u2154": " 2/3 ", "\u215b": " 1/8 ",
})  # fmt: skip
NOT_IN_A_LIST = re.compile(r"[^0-9\s,]")


def _f1(prediction: str, reference: str) -> float:
    """F1 of the words that are left of the normalised texts in ASCII."""
    return bag_f1(_ascii_words(prediction), _ascii_words(reference))


def _ascii_words(text: str) -> list[str]:
    text = normalize(text)
    if text.isascii():
        return text.split()
    try:
        from anyascii import anyascii  # only scores that need it pay for it
    except ImportError:
        raise ScoreError("accents are folded by anyascii, which is not installed: pip install anyascii") from None
    return anyascii(text.translate(SIGNS)).split()


def _accuracy(prediction: str, reference: str) -> float:
    """1 where the first letter A to D that stands alone is the same; the article at the beginning is one, too."""
    expected, found = LETTER.search(reference), LETTER.search(prediction)
    if not expected:
        raise ScoreError(f"references={short(reference)}: must name a letter from A to D")
    return float(found is not None and found[0] == expected[0])


def _exp_similarity(prediction: str, reference: str) -> float:
    """0.5 ** (difference of the first percentages in points / 10); 0 where a text has none."""
    found, expected = (PERCENTAGE.search(text) for text in (prediction, reference))
    if not found or not expected:
        return 0.0
    difference = abs(float(found[1]) - float(expected[1]))
    return float(0.5 ** (difference / 10))


def _concordance(prediction: str, reference: str) -> float:
    """Share of the pairs that stand in the expected order; 0 for anything but the expected numbers, each as often.

    (Kendall's tau + 1) / 2
    """
    expected, found = _numbers(reference), _numbers(prediction)
    order = {number: place for place, number in enumerate(expected)}
    if not expected:
        raise ScoreError(f"references={short(reference)}: must be whole numbers")
    if sorted(found) != sorted(expected):
        return 0.0
    before: list[int] = []
    right = 0
    for place in map(order.__getitem__, found):
        right += bisect(before, place)
        insort(before, place)
    pairs = len(found) * (len(found) - 1) / 2
    return right / pairs if pairs else 1.0


def _numbers(text: str) -> list[str]:
    """Whole numbers without leading zeros; what is neither digit, comma nor white space is as if it were not there."""
    words = NOT_IN_A_LIST.sub("", text).replace(",", " ").split()
    return [word.lstrip("0") or "0" for word in words]


_ROUGE: dict[str, Metric] = {
    "rouge1": best(partial(rouge_n, n=1)),
    "rouge2": best(partial(rouge_n, n=2)),
    "rougeL": best(rouge_l),
}


def _geometric_mean(prediction: str, references: object, classes: Sequence[str] | None = None) -> float:
    """Cube root of rouge1 x rouge2 x rougeL, each of its own best reference."""
    return _cube_root([metric(prediction, references, classes) for metric in _ROUGE.values()])


def _cube_root(numbers: Sequence[float]) -> float:
    product = 1.0
    for number in numbers:
        product *= number
    return float(product ** (1 / 3))


def aggregate(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> Number:
    """Percent, not rounded; of summaries rouge1, rouge2, rougeL and geometric_mean, cube root of the three averages."""
    if "geometric_mean" not in metrics:
        found = {name: percent(each(metric, rows, classes)) for name, metric in metrics.items()}
        return found if len(found) > 1 else next(iter(found.values()))
    averages = {name: percent(each(metric, rows, classes)) for name, metric in _ROUGE.items()}
    geometric = _cube_root(list(averages.values()))
    return averages | {"geometric_mean": geometric} if len(metrics) > 1 else geometric


_SUMMARY: dict[str, Metric] = {"geometric_mean": _geometric_mean, **_ROUGE}
_SUBSETS = {
    "gov_report": _SUMMARY,
    "summ_screen_fd": _SUMMARY,
    "qmsum": _SUMMARY,
    "squality": _SUMMARY,
    "qasper": {"f1": best(_f1)},
    "narrative_qa": {"f1": best(_f1)},
    "quality": {"accuracy": best(_accuracy)},
    "musique": {"f1": best(_f1)},
    "space_digest": {"exp_similarity": best(_exp_similarity)},
    "book_sum_sort": {"concordance_index": best(_concordance)},
}

BENCHMARK = Benchmark(
    subsets=_SUBSETS,
    on_request={subset: {"kvpress": None} for subset in _SUBSETS},
    checks={
        "quality": all_fit(LETTER.search, "name a letter from A to D"),
        "space_digest": one_fits(PERCENTAGE.search, "hold a percentage"),
        "book_sum_sort": all_fit(_numbers, "be whole numbers"),
    },
    aggregate=aggregate,
)
