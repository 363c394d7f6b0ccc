"""How sure a number is: 95 % intervals of means, of paired differences and of a rank correlation."""

import math
from collections.abc import Hashable, Iterable, Sequence
from statistics import NormalDist
from typing import NamedTuple

from sahub.errors import ScoreError
from sahub.stats.bounded import Groups, grouped, lower_bound, p_value

CONFIDENCE = 0.95
TAIL = (1 - CONFIDENCE) / 2  # the chance that either end is on the wrong side of the truth
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Interval(NamedTuple):
    """A mean and its 95 % interval: each end is beyond the truth in at most 2.5 % of samples."""

    mean: float
    low: float
    high: float


class Tau(NamedTuple):
    """A rank correlation; tau is None where one side is constant, the bounds where there is no tau."""

    tau: float | None
    low: float | None
    high: float | None
    n: int


def mean_interval(values: Iterable[float], clusters: Iterable[Hashable] | None = None) -> Interval:
    """The mean of all scores in [0, 1] with its 95 % interval; those of one cluster (a context) are not independent.

    Of 0/1 scores, one in each cluster, it is Clopper and Pearson's. Few clusters give a wide interval, one nearly all
    of [0, 1]. See `bounded.p_value`.
    """
    return _interval(_groups(_scores(values, "mean_interval"), clusters), 0.0, 1.0)


def paired_interval(
    one: Sequence[float], other: Sequence[float], clusters: Iterable[Hashable] | None = None
) -> Interval:
    """The mean of one - other over the same questions, scores in [0, 1], with its 95 % interval over clusters."""
    return _interval(paired(one, other, clusters), -1.0, 1.0)


def signed_rank_p_value(differences: Sequence[float]) -> float:
    """The p-value against `these paired differences are no more above 0 than below`, whatever their size and spread.

    Source   Wilcoxon 1945, Biometrics Bull. 1:80, as scipy computes it
    """
    from scipy.stats import wilcoxon  # 0.3 s, and only a search asks

    return float(wilcoxon(differences, alternative="greater").pvalue) if any(differences) else 1.0


def paired_p_value(
    one: Sequence[float], other: Sequence[float], clusters: Iterable[Hashable] | None = None, *, above: float = 0.0
) -> float:
    """The p-value against `one - other is at most above`: below 0.025 exactly where the interval lies above it."""
    return p_value(paired(one, other, clusters), -1.0, above)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several questions made comparable with the chance of one wrong answer among them all.

    Source   Holm 1979, Scand. J. Stat. 6:65
    """
    found, worst = [0.0] * len(p_values), 0.0
    for place, number in enumerate(sorted(range(len(p_values)), key=p_values.__getitem__)):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[number]))
        found[number] = worst
    return found


def paired(one: Sequence[float], other: Sequence[float], clusters: Iterable[Hashable] | None) -> Groups:
    """The differences one - other by cluster; without clusters each is its own. Raises ScoreError."""
    if len(one) != len(other):
        raise ScoreError(f"paired: {len(one)} and {len(other)} values: must be pairs")
    both = zip(_scores(one, "paired"), _scores(other, "paired"), strict=True)
    return _groups([first - second for first, second in both], clusters)


def _groups(values: Sequence[float], clusters: Iterable[Hashable] | None) -> Groups:
    labels = list(range(len(values)) if clusters is None else clusters)
    if len(labels) != len(values):
        raise ScoreError(f"clusters: {len(labels)} labels for {len(values)} values: must be one each")
    return grouped(values, labels)


def _interval(groups: Groups, least: float, most: float) -> Interval:
    low = lower_bound(groups, least, TAIL)
    high = -lower_bound(groups.negated(), -most, TAIL)
    return Interval(groups.mean, low, high)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> Tau:
    """Kendall's tau-b with a 95 % interval: ties lower it only through the pairs they take away.

    The interval is Fisher's: tanh(atanh(tau) +- z sqrt(0.437 / (n - 4))), [-1, 1] for n <= 4.

    Source   Kendall 1945, Biometrika 33:239; Fieller, Hartley and Pearson 1957, Biometrika 44:470
    Differs  a perfect tau is drawn in by one pair's share before atanh, so that its interval has a width
    """
    from scipy.stats import kendalltau  # 0.3 s, and only a search asks

    if len(a) != len(b):
        raise ScoreError(f"kendall_tau: {len(a)} and {len(b)} values: must be pairs")
    n = len(a)
    if len(set(a)) < 2 or len(set(b)) < 2:
        return Tau(None, None, None, n)
    tau = max(-1.0, min(1.0, round(float(kendalltau(a, b).statistic), 12)))
    if n <= 4:
        return Tau(tau, -1.0, 1.0, n)
    most = 1 - 2 / (n * (n - 1))
    centre, half = math.atanh(max(-most, min(most, tau))), Z * math.sqrt(0.437 / (n - 4))
    low, high = math.tanh(centre - half), math.tanh(centre + half)
    return Tau(tau, min(low, tau), max(high, tau), n)


def _scores(values: Iterable[float], name: str) -> list[float]:
    scores = [float(value) for value in values]
    if not scores or not all(0 <= score <= 1 for score in scores):
        raise ScoreError(f"{name}: needs at least one score, all of them in [0, 1]; got {scores[:8]}")
    return scores
