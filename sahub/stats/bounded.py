"""How far a mean of bounded values may lie from what was seen: a bound that holds for few, rare and uneven values."""

import math
from collections import Counter
from collections.abc import Hashable, Iterable, Sequence
from typing import NamedTuple

import numpy as np
from scipy.optimize import brentq

_NODES = np.sinh(np.linspace(0.0, 12.0, 241))  # of the integral; its terms fall as a power, so it reaches far
_WEIGHTS = np.cosh(np.linspace(0.0, 12.0, 241)) * 0.05
_WEIGHTS[0] /= 2


class Groups(NamedTuple):
    """Independent groups of values (a context's): the sum of each, its number of values, and how many are like it."""

    sums: np.ndarray
    sizes: np.ndarray
    counts: np.ndarray

    @property
    def mean(self) -> float:
        """The mean of all values."""
        return float(self.counts @ self.sums / (self.counts @ self.sizes))

    def negated(self) -> "Groups":
        """The same groups of the negated values."""
        return self._replace(sums=-self.sums)


def grouped(values: Sequence[float], labels: Iterable[Hashable]) -> Groups:
    """The values of one label are one group."""
    groups: dict[Hashable, list[float]] = {}
    for label, value in zip(labels, values, strict=True):
        groups.setdefault(label, []).append(value)
    alike = Counter((math.fsum(group), len(group)) for group in groups.values())
    sums, sizes = np.array([*alike], dtype=float).T
    return Groups(sums, sizes, np.array([*alike.values()], dtype=float))


def p_value(groups: Groups, least: float, mean: float) -> float:
    """The chance, where the true mean is `mean` or less, of groups that speak for a larger one as much as these.

    least  what no value lies below

    p = P(sum over groups of E (sum - size * mean) + E' max size * (least - mean) <= 0),  E, E' exponential

    which puts a group of the worst value beside those that were seen. Of 0/1 values it is Clopper and Pearson's; of
    paired 0/1 values and mean 0 the exact sign test.

    Source   Gaffke 2005, Math. Methods Stat. 14:451; Learned-Miller and Thomas 2019, arXiv:1905.06208
    Differs  values come in groups; the distribution is integrated numerically, where they draw from it
    """
    worst = groups.sizes.max() * (least - mean)
    return _at_most_zero(np.append(groups.sums - groups.sizes * mean, worst), np.append(groups.counts, 1.0))


def _at_most_zero(steps: np.ndarray, counts: np.ndarray) -> float:
    """P(sum of steps * Gamma(counts) <= 0), to 1e-6.

    = -1/(2 pi i) times the integral of prod (1 - step s)^-count / s along Re s = c, for any c < 0 at which the product
    is finite; taken where it falls fastest on both sides.
    """
    inside = np.abs(steps) > 1e-12 * np.abs(steps).max()
    steps, counts = steps[inside], counts[inside]
    if not steps.size or steps.max() < 0:
        return 1.0
    if steps.min() > 0:
        return 0.0
    centre = _saddle(steps, counts)
    width = (counts @ np.square(steps / (1 - steps * centre)) + centre**-2) ** -0.5
    at = centre + 1j * width * _NODES
    logs = np.log(1 - np.outer(at, steps))
    heights = np.exp(-(logs * counts).sum(axis=1)) / at  # a product of matrices would wait for threads
    return min(1.0, max(0.0, float(-width / math.pi * (heights.real @ _WEIGHTS))))


def _saddle(steps: np.ndarray, counts: np.ndarray) -> float:
    """The c < 0 at which prod (1 - step c)^-count / |c| is least."""
    lowest, total = steps.min(), float(counts @ np.abs(steps))
    ends = (1 - 0.25 * -lowest / (total - lowest)) / lowest, -0.25 / total  # the slope is below 0, above 0
    return float(brentq(lambda c: counts @ (steps / (1 - steps * c)) - 1 / c, *ends, xtol=1e-12 / total))


def lower_bound(groups: Groups, least: float, chance: float) -> float:
    """The largest mean that such groups speak against with a p-value of at most `chance`."""
    if groups.mean - least < 1e-12:
        return least
    return float(brentq(lambda bound: p_value(groups, least, bound) - chance, least, groups.mean, xtol=1e-9))
