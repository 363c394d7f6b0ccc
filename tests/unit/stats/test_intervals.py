"""Intervals against exact tables, slow references and their own promise to cover."""

import math
from fractions import Fraction
from random import Random

import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given, settings
from interval_coverage import ALIKE, Truth, above, missed
from scipy.stats import binom, binomtest

from sahub.errors import ScoreError
from sahub.stats.bounded import Groups, p_value
from sahub.stats.intervals import TAIL, holm, kendall_tau, mean_interval, paired, paired_interval, paired_p_value
from sahub.stats.verdict import Verdict, verdict, verdicts, words


def pairs(gains: int, losses: int, n: int) -> tuple[list[int], list[int]]:
    """0/1 scores of n questions, of which so many differ."""
    same = n - gains - losses
    return [1] * gains + [0] * losses + [1] * same, [0] * gains + [1] * losses + [1] * same


@pytest.mark.parametrize(("successes", "n"), [(81, 263), (15, 148), (0, 20), (1, 29), (40, 40), (1, 1), (499, 500)])
def test_single_answers_get_clopper_and_pearsons_interval(successes: int, n: int) -> None:
    exact = binomtest(successes, n).proportion_ci(0.95, method="exact")
    found = mean_interval([1] * successes + [0] * (n - successes))
    assert found == pytest.approx((successes / n, exact.low, exact.high), abs=1e-6)
    assert mean_interval([1] * successes + [0] * (n - successes), range(n)) == found


@settings(max_examples=50, deadline=None, derandomize=True)
@given(gains=st.integers(0, 30), losses=st.integers(0, 30), same=st.integers(0, 400))
def test_better_is_said_by_the_exact_sign_test(gains: int, losses: int, same: int) -> None:
    one, other = pairs(gains, losses, gains + losses + same)
    sign = binom.sf(gains - 1, gains + losses, 0.5)
    assert paired_p_value(one or [1], other or [1]) == pytest.approx(sign, abs=1e-6)


def test_p_values_are_those_that_drawing_gives() -> None:
    # Sums of exponentials with steps of a gamma each, for 200,000 draws (the definition, slowly).
    chance, draws = Random(0), 200_000
    for sums, sizes, mean in (
        ((0.5, -0.2, 0.0, 0.9), (1, 2, 1, 1), -0.2),
        ((-1.0, 0.25, 0.75, 0.5, 0.0), (1,) * 5, -0.4),
    ):
        groups = Groups(np.array(sums), np.array(sizes), np.ones(len(sums)))
        steps = [total - size * mean for total, size in zip(sums, sizes, strict=True)] + [max(sizes) * (-1 - mean)]
        below = sum(sum(step * chance.expovariate(1) for step in steps) <= 0 for _ in range(draws)) / draws
        assert p_value(groups, -1.0, mean) == pytest.approx(below, abs=4 * (0.25 / draws) ** 0.5)


@pytest.mark.parametrize("n", [30, 60])
def test_an_end_of_a_paired_interval_is_beyond_the_truth_in_at_most_one_of_forty(n: int) -> None:
    worst = max(
        above(Truth(n, *both)) for x in (0, 0.01, 0.05, 0.12, 0.3) for y in (0, 0.02) for both in ((x, y), (y, x))
    )
    assert 0.015 < worst <= TAIL


@pytest.mark.parametrize("alike", ALIKE)
@pytest.mark.parametrize("sizes", [(4,), tuple(range(1, 9))])
def test_so_it_is_with_several_questions_a_context(sizes: tuple[int, ...], alike: float) -> None:
    draws = 400
    ends = missed(Truth(120, 0.1, 0.02), sizes, alike, draws)
    assert max(ends) <= TAIL + 3 * (TAIL * (1 - TAIL) / draws) ** 0.5


def test_so_it_is_with_graded_scores_that_rarely_fall_far() -> None:
    chance, draws, beyond = Random(0), 200, 0
    for _ in range(draws):
        dense = [chance.uniform(0.5, 1.0) for _ in range(60)]
        sparse = [0.0 if chance.random() < 0.03 else score for score in dense]
        beyond += paired_interval(sparse, dense).low > -0.03 * 0.75
    assert beyond / draws <= TAIL + 3 * (TAIL * (1 - TAIL) / draws) ** 0.5


@settings(max_examples=50, deadline=None, derandomize=True)
@given(scores=st.lists(st.tuples(st.sampled_from([0, 0.25, 0.5, 1]), st.floats(0, 1), st.integers(0, 5)), min_size=1))
def test_ends_lie_around_the_mean_and_mirror_each_other(scores: list[tuple[float, float, int]]) -> None:
    one, other, clusters = zip(*scores, strict=True)
    found, turned = paired_interval(one, other, clusters), paired_interval(other, one, clusters)
    assert -1 <= found.low <= found.mean + 1e-9
    assert found.mean - 1e-9 <= found.high <= 1
    assert turned == pytest.approx((-found.mean, -found.high, -found.low), abs=1e-6)
    assert mean_interval(other, clusters).mean == pytest.approx(math.fsum(other) / len(other))


def test_clusters_of_one_size_are_their_means() -> None:
    found = mean_interval([0.1, 0.3, 0.5, 0.9, 0.2, 0.2], ["a", "a", "b", "b", "c", "c"])
    assert found == pytest.approx(mean_interval([0.2, 0.7, 0.2]))
    assert mean_interval([1.0, 0.5, 0.5, 0.5], "abbb").mean == 0.625


def test_few_clusters_say_little_however_many_questions_they_have() -> None:
    one, two = mean_interval([1.0] * 500, [0] * 500), mean_interval([1.0] * 500, [0, 1] * 250)
    assert (one.low, two.low) == pytest.approx((TAIL, TAIL**0.5))
    assert verdict([1] * 500, [1] * 500, [0, 1] * 250, margin=0.1).word == "undecided"


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_pairs_that_always_differ_alike_are_not_certain(value: float) -> None:
    rare = 1 - TAIL ** (1 / 40)  # what was never seen is this frequent at most
    found = paired_interval([value] * 40, [value] * 40)
    assert found == pytest.approx((0, -rare, rare), abs=1e-6)
    assert paired_interval([1] * 40, [0] * 40) == pytest.approx((1, 1 - 2 * rare, 1), abs=1e-6)


def test_verdicts_follow_the_interval() -> None:
    assert verdict(*pairs(0, 0, 100), margin=0.05) == Verdict("lossless", 0.05, None)
    assert verdict(*pairs(0, 60, 100), margin=0.05) == Verdict("worse", 0.05, None)
    for gains, losses in ((0, 0), (3, 0), (0, 4), (2, 9), (0, 12)):
        low, high = paired_interval(*pairs(gains, losses, 60))[1:]
        said = verdict(*pairs(gains, losses, 60), margin=0.07).word
        assert said == ("lossless" if low > -0.07 else "worse" if high < -0.07 else "undecided")


def test_more_contexts_are_those_that_would_decide() -> None:
    found = verdict(*pairs(0, 0, 40), margin=0.05)
    assert found.word == "undecided"
    assert found.more_contexts == pytest.approx(math.log(TAIL) / math.log(0.95) - 40, abs=8)  # 0.95^n = 2.5 %
    assert verdict(*pairs(0, 0, 40), margin=0.05) == found
    on_the_line = verdict(*pairs(0, 2, 40), margin=0.05)  # what is seen is the margin itself
    assert on_the_line == ("undecided", 0.05, None)


def test_verdicts_of_a_table_hold_together() -> None:
    def said(*cells: tuple[int, int, int]) -> list[str]:
        return list(words([paired(*pairs(*cell), None) for cell in cells], [0.05] * len(cells)))

    alone, clear, lost = (0, 0, 80), (0, 0, 300), (0, 60, 100)  # p of the first: 0.95^80, 1.7 %
    assert said(alone) == ["lossless"]
    assert said(alone, alone) == ["undecided", "undecided"]  # 1.7 % twice
    assert said(clear, alone) == ["lossless", "lossless"]  # the first is decided, and takes nothing from the other
    assert said(lost, alone) == ["worse", "undecided"]
    assert said() == []
    needs = [verdicts([paired(*pairs(*alone), None)] * many, [0.05] * many)[0].more_contexts for many in (2, 20)]
    assert needs[0] is not None
    assert needs[1] is not None
    assert 0 < needs[0] < needs[1]


def test_few_tables_hold_a_wrong_lossless() -> None:
    # Five builders that lose exactly the margin: each lossless of theirs is wrong.
    chance, tables, wrong = Random(7), 400, 0
    for _ in range(tables):
        cells = []
        for _ in range(5):
            losses = sum(chance.random() < 0.05 for _ in range(120))
            cells.append(paired(*pairs(0, losses, 120), None))
        wrong += "lossless" in words(cells, [0.05] * 5)
    assert wrong / tables <= 0.025 + 3 * math.sqrt(0.025 * 0.975 / tables)


@pytest.mark.parametrize("margin", [0.0, -0.1, 1.5, math.nan])
def test_a_margin_is_a_share(margin: float) -> None:
    with pytest.raises(ScoreError, match=r"margin=.*: must be a share"):
        verdict([1.0], [1.0], margin=margin)


def test_holm_equals_its_definition() -> None:
    # In exact fractions: the k-th smallest of m times m - k, no smaller than the one before, at most 1.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([Fraction(1, 2), Fraction(3, 4)]) == [1, 1]  # type: ignore[list-item]
    assert holm([]) == []


def slow_tau(a: list[int], b: list[int]) -> float:
    n = range(len(a))
    agree = sum((a[i] - a[j]) * (b[i] - b[j]) > 0 for i in n for j in n)
    against = sum((a[i] - a[j]) * (b[i] - b[j]) < 0 for i in n for j in n)
    differ_a, differ_b = (sum(x[i] != x[j] for i in n for j in n) for x in (a, b))
    return (agree - against) / math.sqrt(differ_a * differ_b)


def test_kendall_tau_with_ties_equals_a_slow_reference() -> None:
    rng = Random(0)
    for _ in range(100):
        n = rng.randint(2, 20)
        a, b = ([rng.randint(0, 5) for _ in range(n)] for _ in range(2))
        if len(set(a)) > 1 and len(set(b)) > 1:
            assert kendall_tau(a, b).tau == pytest.approx(slow_tau(a, b))


def test_kendall_tau_has_an_interval_around_it() -> None:
    tau, low, high, _ = kendall_tau(range(12), [0, 2, 1, 3, 5, 4, 6, 8, 7, 9, 11, 10])
    assert (tau, low, high) == pytest.approx((0.878788, 0.722252, 0.949679), abs=1e-6)
    perfect = kendall_tau(range(12), range(12))
    assert perfect.tau == perfect.high == 1
    assert perfect.low is not None
    assert 0.9 < perfect.low < 1
    assert kendall_tau([1, 2, 3], [3, 2, 1]) == (-1, -1, 1, 3)
    assert kendall_tau([1, 1, 1], [1, 2, 3]) == (None, None, None, 3)


def test_what_has_no_interval_is_an_error() -> None:
    for call in (
        lambda: mean_interval([]),
        lambda: mean_interval([float("nan")]),
        lambda: mean_interval([1.5]),
        lambda: paired_interval([], []),
    ):
        with pytest.raises(ScoreError, match=r"at least one score, all of them in \[0, 1\]"):
            call()
    with pytest.raises(ScoreError, match="2 and 1 values"):
        paired_interval([1, 0], [1])
    with pytest.raises(ScoreError, match="clusters: 1 labels for 2 values"):
        mean_interval([1, 0], ["a"])
    with pytest.raises(ScoreError, match="kendall_tau: 1 and 2 values"):
        kendall_tau([1], [1, 2])
