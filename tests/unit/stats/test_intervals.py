"""Intervals against published tables, slow references and their own promise to cover."""

import math
from random import Random

import pytest

from sahub.errors import ScoreError
from sahub.stats.intervals import kendall_tau, mean_interval, paired_interval, t_quantile, wilson


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [
        # Newcombe 1998, Stat. Med. 17:857, table I, method 3
        (81, 263, 0.2553, 0.3662),
        (15, 148, 0.0624, 0.1605),
        (0, 20, 0.0, 0.1611),
        (1, 29, 0.0061, 0.1718),
    ],
)
def test_wilson_equals_published_values(successes: int, n: int, low: float, high: float) -> None:
    assert wilson(successes, n) == pytest.approx((low, high), abs=5e-5)
    assert wilson(n - successes, n) == pytest.approx((1 - high, 1 - low), abs=5e-5)


@pytest.mark.parametrize(
    ("df", "point"),
    [(1, 12.706), (2, 4.303), (3, 3.182), (5, 2.571), (10, 2.228), (30, 2.042), (120, 1.980), (1000, 1.962)],
)
def test_t_quantile_equals_published_values(df: int, point: float) -> None:
    assert t_quantile(df) == pytest.approx(point, abs=5e-4)


def test_t_quantile_falls_towards_the_normal_point() -> None:
    points = [t_quantile(df) for df in (1, 2, 3, 4, 9, 50, 999, 9999, 10_001)]
    assert points == sorted(points, reverse=True)
    assert points[-1] == pytest.approx(1.959964, abs=1e-6)


def test_single_answers_get_wilsons_interval() -> None:
    values = [1] * 32 + [0] * 8
    assert mean_interval(values) == (0.8, *wilson(32, 40))
    assert mean_interval(values, range(40)) == mean_interval(values)


def test_scores_get_students_interval() -> None:
    mean, low, high = mean_interval([0.1, 0.4, 0.7])
    half = 4.302653 * 0.3 / math.sqrt(3)
    assert (mean, low, high) == pytest.approx((0.4, 0.4 - half, 0.4 + half), abs=1e-6)


def test_clusters_of_one_size_are_their_means() -> None:
    found = mean_interval([0.1, 0.3, 0.5, 0.9, 0.2, 0.2], ["a", "a", "b", "b", "c", "c"])
    assert found == pytest.approx(mean_interval([0.2, 0.7, 0.2]))


def test_the_mean_of_clusters_of_any_size_is_the_mean_of_values() -> None:
    assert mean_interval([1.0, 0.5, 0.5, 0.5], "abbb").mean == 0.625


def test_clusters_that_agree_count_as_one_answer_each() -> None:
    assert mean_interval([1] * 80, [i // 2 for i in range(80)]) == (1.0, *wilson(40, 40))
    assert mean_interval([1, 0] * 40, [i // 2 for i in range(80)]) == (0.5, *wilson(20, 40))


def test_one_observation_says_nothing_about_spread() -> None:
    assert mean_interval([0.3]) == (0.3, None, None)
    assert mean_interval([1, 0, 1], "aaa")[1:] == wilson(2 / 3, 1)
    assert paired_interval([0.3], [0.5]).low is None


def test_pairs_are_compared_question_by_question() -> None:
    sparse, dense = [0.2, 0.5, 0.9, 0.4], [0.3, 0.5, 0.9, 0.8]
    assert paired_interval(sparse, dense) == pytest.approx(mean_interval([-0.1, 0.0, 0.0, -0.4]))


@pytest.mark.parametrize(
    ("sparse", "dense", "mean", "low", "high"),
    [(1, 1, 0, -0.087622, 0.087622), (0, 1, -1, -1, -1 + 2 * 0.087622), (1, 0, 1, 1 - 2 * 0.087622, 1)],
)
def test_pairs_that_always_differ_alike_are_not_certain(
    sparse: int, dense: int, mean: float, low: float, high: float
) -> None:
    assert paired_interval([sparse] * 40, [dense] * 40) == pytest.approx((mean, low, high), abs=1e-5)


def test_intervals_cover_the_truth_about_as_often_as_they_say() -> None:
    rng = Random(0)
    hits = 0
    for _ in range(400):
        values, clusters = [], []
        for cluster in range(30):
            chance = rng.betavariate(2, 1)
            values += [float(rng.random() < chance) for _ in range(4)]
            clusters += [cluster] * 4
        _, low, high = mean_interval(values, clusters)
        hits += low is not None and high is not None and low <= 2 / 3 <= high
    assert 0.92 <= hits / 400 <= 0.98


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


def test_kendall_tau_equals_a_published_value() -> None:
    # The example of scipy.stats.kendalltau's documentation.
    found = kendall_tau([12, 2, 1, 12, 2], [1, 4, 7, 1, 0])
    assert found.tau == pytest.approx(-0.47140452079103173)
    assert found.n == 5


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
    for call in (lambda: mean_interval([]), lambda: mean_interval([float("nan")]), lambda: paired_interval([], [])):
        with pytest.raises(ScoreError, match="at least one value, all of them finite"):
            call()
    with pytest.raises(ScoreError, match="2 sparse and 1 dense values"):
        paired_interval([1, 2], [1])
    with pytest.raises(ScoreError, match="clusters: 1 labels for 2 values"):
        mean_interval([1, 2], ["a"])
    with pytest.raises(ScoreError, match="kendall_tau: 1 and 2 values"):
        kendall_tau([1], [1, 2])
