"""Rank correlation and regret of the table of measures, on cases small enough to count by hand."""

import json
import math
from pathlib import Path

import pytest
from measure_table import REAL, TRUTH, Numbers, interval, line_of, read, regret, table, together

ONE, TWO, THREE = list(REAL)[:3]
KL = ("teacher", "answer_kl")
NAMES = [(ONE, 0.1), (TWO, 0.1), (THREE, 0.1), ("oracle_topk", 0.1), (ONE, 0.2), (TWO, 0.2)]


def numbers(measured: list[float], lost: list[float]) -> Numbers:
    return Numbers(NAMES, {TRUTH: [lost], KL: [measured]})


def test_tau_is_taken_within_each_density_and_over_all() -> None:
    # At 0.1 one of six pairs is turned; at 0.2 the only pair is. Over all 15 pairs: those two and none between.
    line = line_of(numbers([0.1, 0.2, 0.4, 0.3, 0.02, 0.01], [0.5, 0.6, 0.7, 0.8, 0.1, 0.2]), KL, [0])
    assert line.within == [pytest.approx((5 - 1) / 6), -1.0]
    assert line.overall == pytest.approx((13 - 2) / 15)
    assert (line.mean, line.least) == (pytest.approx((4 / 6 - 1) / 2), -1.0)


def test_a_density_where_all_stacks_score_the_same_has_no_tau() -> None:
    line = line_of(numbers([0.1, 0.2, 0.3, 0.4, 0.5, 0.6], [0.5, 0.6, 0.7, 0.8, 0.0, 0.0]), KL, [0])
    assert line.within == [1.0, None]
    assert line.mean == line.least == 1.0
    constant = line_of(numbers([0.1] * 6, [0.5, 0.6, 0.7, 0.8, 0.0, 0.1]), KL, [0])
    assert constant.overall is None
    assert math.isnan(constant.mean)


def test_regret_is_what_the_best_measured_gives_away() -> None:
    assert regret([0.3, 0.1, 0.2], [0.0, 0.25, 0.5]) == pytest.approx(25)
    assert regret([0.1, 0.2], [0.25, 0.5]) == 0
    assert regret([0.1, 0.1, 0.3], [0.0, 0.5, 0.2]) == pytest.approx(25)  # of two that tie, either may be taken


def test_regret_leaves_out_what_no_deployment_could_use() -> None:
    line = line_of(numbers([0.3, 0.1, 0.2, 0.01, 0.1, 0.2], [0.5, 0.75, 1.0, 0.0, 0.0, 0.0]), KL, [0])
    assert line.regrets == [pytest.approx(25), 0]


def test_a_number_is_the_mean_over_contexts_that_every_stack_has_seen(tmp_path: Path) -> None:
    path = tmp_path / "some.jsonl"
    rows = [
        {"context": context, "stack": stack, "density": 0.1, "measures": {
            "generate": {"benchmark_score": score}, "teacher": {"answer_kl": kl, "gone": 1.0}}}
        for context, stack, score, kl in (
            (0, ONE, 1.0, 0.1), (0, TWO, 0.0, 0.2), (1, ONE, 0.5, 0.3), (1, TWO, 0.5, 0.2), (2, ONE, 0.0, 9.0))
    ]  # fmt: skip
    path.write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    found = read(path)
    assert found.names == sorted([(ONE, 0.1), (TWO, 0.1)])
    assert set(found.columns) == {TRUTH, KL}  # a measure that is no more is not shown
    at = found.names.index((ONE, 0.1))
    assert found.means(TRUTH, [0, 1])[at] == pytest.approx(0.25)  # higher is better: what is lost
    assert found.means(KL, [0, 1])[at] == pytest.approx(0.2)
    assert found.means(KL, [0, 0, 1])[at] == pytest.approx(0.5 / 3)


def test_intervals_hold_the_number_and_repeat() -> None:
    lost = [[0.0, 0.5, 1.0, 0.0, 0.0, 1.0], [0.5, 0.0, 1.0, 0.0, 0.0, 0.5], [0.5, 1.0, 1.0, 0.5, 1.0, 0.0]]
    kl = [[0.1, 0.2, 0.3, 0.0, 0.1, 0.2], [0.2, 0.3, 0.4, 0.1, 0.1, 0.3], [0.1, 0.2, 0.3, 0.0, 0.2, 0.1]]
    some = Numbers(NAMES, {TRUTH: lost, KL: kl})
    low, high = interval(some, KL, lambda line: line.mean)
    assert low <= line_of(some, KL, range(3)).mean <= high
    assert (low, high) == interval(some, KL, lambda line: line.mean)


def test_the_tables_have_a_line_for_every_measure() -> None:
    some = numbers([0.1, 0.2, 0.4, 0.3, 0.02, 0.01], [0.5, 0.6, 0.7, 0.8, 0.1, 0.2])
    [line] = table(some)
    assert line.startswith("| answer_kl | teacher | 0.73 [")
    assert line.endswith("| -1.00 | 5.0 | 10.0 |")
    assert list(together({"a": some, "b": some})) == ["| answer_kl | teacher | -0.17 | -0.17 | -1.00 | 5.0 | 5.0 |"]
