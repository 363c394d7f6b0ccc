"""How sure a number is: 95 % intervals of means, of paired differences and of a rank correlation."""

import math
from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from itertools import combinations
from statistics import NormalDist, fmean
from typing import NamedTuple

from sahub.errors import ScoreError

CONFIDENCE = 0.95
Z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)


class Interval(NamedTuple):
    """A mean and its 95 % interval; low and high are None where one observation says nothing about spread."""

    mean: float
    low: float | None
    high: float | None


class Tau(NamedTuple):
    """A rank correlation; tau is None where one side is constant, the bounds where there is no tau."""

    tau: float | None
    low: float | None
    high: float | None
    n: int


def wilson(successes: float, n: float) -> tuple[float, float]:
    """Wilson's score interval of a proportion.

    centre = (p + z^2/2n) / (1 + z^2/n),  half width = z sqrt(p(1-p)/n + z^2/4n^2) / (1 + z^2/n)

    Source   Wilson 1927, J. Am. Stat. Assoc. 22:209
    """
    p, z2 = successes / n, Z * Z
    centre = (p + z2 / (2 * n)) / (1 + z2 / n)
    half = Z * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n)) / (1 + z2 / n)
    return (0.0 if p == 0 else centre - half), (1.0 if p == 1 else centre + half)


@lru_cache
def t_quantile(df: int) -> float:
    """The two-sided 95 % point of Student's t with `df` >= 1 degrees of freedom, to 1e-9 by bisection."""
    if df > 10_000:  # the normal point is within 0.0003 there
        return Z
    low, high = 0.0, 13.0  # 12.706 at df = 1
    while high - low > 1e-10:
        middle = (low + high) / 2
        low, high = (middle, high) if _t_between(middle, df) < CONFIDENCE else (low, middle)
    return (low + high) / 2


def _t_between(t: float, df: int) -> float:
    """P(-t < T < t), by the finite sums for a whole number of degrees of freedom.

    Source   Abramowitz and Stegun 1964, 26.7.3 and 26.7.4
    """
    angle = math.atan(t / math.sqrt(df))
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = df % 2
    term = cosine if odd else 1.0
    total = term if df > 1 else 0.0
    for k in range(2 + odd, df - 1, 2):
        term *= (k - 1) / k * cosine * cosine
        total += term
    return 2 / math.pi * (angle + sine * total) if odd else sine * total


def mean_interval(values: Iterable[float], clusters: Iterable[Hashable] | None = None) -> Interval:
    """The mean of all values with its 95 % interval; values of one cluster (a context) are not independent.

    Wilson for 0/1 values without clusters (or one value in each), Student's t over clusters otherwise:
    variance = G/(G-1) sum_c (sum of c's values - size of c * mean)^2 / n^2, which for clusters of one size is the
    variance of the mean of their means. 0/1 clusters that all have the same mean count as one 0/1 value each: that they
    agree does not make the mean exact.
    """
    scores = _finite(values, "mean_interval")
    groups = _groups(scores, clusters)
    mean, count = fmean(scores), len(groups)
    alike = len({fmean(group) for group in groups}) == 1
    if all(score in (0.0, 1.0) for score in scores) and (alike or count == len(scores)):
        return Interval(mean, *wilson(mean * count, count))
    return _student(mean, groups)


def paired_interval(
    sparse: Sequence[float], dense: Sequence[float], clusters: Iterable[Hashable] | None = None
) -> Interval:
    """The mean of sparse - dense over the same questions, with its 95 % interval over clusters.

    0/1 scores whose differences are all the same d say only that another difference is rare: with r, Wilson's upper
    bound for 0 of that many clusters, the mean lies in [d - r (1 + d), d + r (1 - d)].
    """
    if len(sparse) != len(dense):
        raise ScoreError(f"paired_interval: {len(sparse)} sparse and {len(dense)} dense values: must be pairs")
    differences = _finite((s - d for s, d in zip(sparse, dense, strict=True)), "paired_interval")
    groups = _groups(differences, clusters)
    mean = fmean(differences)
    if len(set(differences)) == 1 and all(score in (0, 1) for score in (*sparse, *dense)):
        rare = wilson(0, len(groups))[1]
        return Interval(mean, mean - rare * (1 + mean), mean + rare * (1 - mean))
    return _student(mean, groups)


def _student(mean: float, groups: list[list[float]]) -> Interval:
    count, n = len(groups), sum(map(len, groups))
    if count < 2:
        return Interval(mean, None, None)
    spread = math.fsum((math.fsum(group) - len(group) * mean) ** 2 for group in groups)
    half = t_quantile(count - 1) * math.sqrt(count / (count - 1) * spread) / n
    return Interval(mean, mean - half, mean + half)


def kendall_tau(a: Sequence[float], b: Sequence[float]) -> Tau:
    """Kendall's tau-b with a 95 % interval: ties lower it only through the pairs they take away.

    tau = (concordant - discordant) / sqrt(pairs not tied in a * pairs not tied in b)

    The interval is Fisher's: tanh(atanh(tau) +- z sqrt(0.437 / (n - 4))), [-1, 1] for n <= 4. Quadratic in n.

    Source   Kendall 1945, Biometrika 33:239; Fieller, Hartley and Pearson 1957, Biometrika 44:470
    Differs  a perfect tau is drawn in by one pair's share before atanh, so that its interval has a width
    """
    if len(a) != len(b):
        raise ScoreError(f"kendall_tau: {len(a)} and {len(b)} values: must be pairs")
    n = len(a)
    balance = untied_a = untied_b = 0
    for (a1, b1), (a2, b2) in combinations(zip(a, b, strict=True), 2):
        sign_a, sign_b = (a1 > a2) - (a1 < a2), (b1 > b2) - (b1 < b2)
        balance += sign_a * sign_b
        untied_a += sign_a != 0
        untied_b += sign_b != 0
    if untied_a == 0 or untied_b == 0:
        return Tau(None, None, None, n)
    tau = max(-1.0, min(1.0, balance / math.sqrt(untied_a * untied_b)))
    if n <= 4:
        return Tau(tau, -1.0, 1.0, n)
    most = 1 - 2 / (n * (n - 1))
    centre, half = math.atanh(max(-most, min(most, tau))), Z * math.sqrt(0.437 / (n - 4))
    low, high = math.tanh(centre - half), math.tanh(centre + half)
    return Tau(tau, min(low, tau), max(high, tau), n)


def _finite(values: Iterable[float], name: str) -> list[float]:
    numbers = [float(value) for value in values]
    if not numbers or not all(map(math.isfinite, numbers)):
        raise ScoreError(f"{name}: needs at least one value, all of them finite; got {numbers[:8]}")
    return numbers


def _groups(values: list[float], clusters: Iterable[Hashable] | None) -> list[list[float]]:
    if clusters is None:
        return [[value] for value in values]
    labels = list(clusters)
    if len(labels) != len(values):
        raise ScoreError(f"clusters: {len(labels)} labels for {len(values)} values: must be one each")
    groups: dict[Hashable, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(value)
    return list(groups.values())
