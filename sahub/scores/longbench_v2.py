"""LongBench-v2: the letter after `The correct answer is`.

Source   THUDM/LongBench pred.py and result.py @2e00731
Differs  a group without rows is NaN (officially a division by zero)
kvpress  counts the expected letter wherever the phrase names it, even if the answer names several
"""

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any

from sahub.errors import ScoreError
from sahub.scores.benchmark import Benchmark, Metrics, Row, all_fit, best, each, percent, short

PHRASE = "The correct answer is "
IN_PARENTHESES, BARE = re.compile(rf"{PHRASE}\(([A-D])\)"), re.compile(rf"{PHRASE}([A-D])")
GROUPS = {"difficulty": ("easy", "hard"), "length": ("short", "medium", "long")}


def _accuracy(prediction: str, reference: str) -> float:
    """1 where the first letter in parentheses, or without any the first bare one, is the expected; asterisks aside."""
    answer = prediction.replace("*", "")
    found = IN_PARENTHESES.search(answer) or BARE.search(answer)
    return float(found is not None and found[1] == _letter(reference))


def _kvpress(prediction: str, reference: str) -> float:
    answer, letter = prediction.replace("*", ""), _letter(reference)
    return float(f"{PHRASE}({letter})" in answer or f"{PHRASE}{letter}" in answer)


def _letter(reference: str) -> str:
    if reference not in ("A", "B", "C", "D"):
        raise ScoreError(f"references={short(reference)}: must be a letter from A to D")
    return reference


def aggregate(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> dict[str, float]:
    """Overall, Easy, Hard, Short, Medium, Long: accuracies in percent, 1 decimal, by `difficulty` and `length`.

    Raises ScoreError for a row without one of the two, or with another value.
    """
    (metric,) = metrics.values()
    scores = each(metric, rows, classes)
    groups: dict[str, list[float]] = {"overall": scores} | {name: [] for names in GROUPS.values() for name in names}
    for number, (row, score) in enumerate(zip(rows, scores, strict=True)):
        for column, names in GROUPS.items():
            groups[_group(row, column, names, f"rows[{number}]")].append(score)
    return {name.capitalize(): round(percent(found), 1) if found else math.nan for name, found in groups.items()}


def _group(row: Mapping[str, Any], column: str, names: Sequence[str], address: str) -> str:
    name = row.get(column)
    if not isinstance(name, str) or name not in names:
        raise ScoreError(f"{address}: {column}={short(name)}: must be one of {', '.join(names)}")
    return name


BENCHMARK = Benchmark(
    subsets={subset: {"accuracy": best(_accuracy)} for subset in ("0shot", "cot")},
    on_request={subset: {"kvpress": best(_kvpress)} for subset in ("0shot", "cot")},
    checks=dict.fromkeys(
        ("0shot", "cot"), all_fit(lambda text: text in ("A", "B", "C", "D"), "be a letter from A to D")
    ),
    aggregate=aggregate,
)
