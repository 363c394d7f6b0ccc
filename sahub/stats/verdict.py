"""What a paired comparison says: lossless within a margin, worse, or undecided, and how many contexts would decide."""

from collections.abc import Hashable, Iterable, Sequence
from typing import Literal, NamedTuple

import numpy as np

from sahub.stats.bounded import Groups, p_value
from sahub.stats.intervals import TAIL, paired

POWER = 0.8  # share of repetitions that must be decided
REPETITIONS = 100
MOST = 10_000  # contexts


class Verdict(NamedTuple):
    """What is known of a mean difference, with at most 2.5 % of wrong verdicts of each kind.

    lossless   not lower by the margin or more
    worse      lower by more than the margin
    undecided  either may be; `more_contexts` like these would tell, in 4 of 5 repetitions (None: not even 10,000)
    """

    word: Literal["lossless", "worse", "undecided"]
    margin: float
    more_contexts: int | None


def verdict(
    one: Sequence[float],
    other: Sequence[float],
    clusters: Iterable[Hashable] | None = None,
    *,
    margin: float,
    seed: int = 0,
) -> Verdict:
    """Of scores in [0, 1] of the same questions: whether `one` loses less than `margin` to `other`."""
    groups = paired(one, other, clusters)
    word = _word(groups, margin)
    return Verdict(word, margin, _more(groups, margin, seed) if word == "undecided" else None)


def _word(groups: Groups, margin: float) -> Literal["lossless", "worse", "undecided"]:
    if p_value(groups, -1.0, -margin) < TAIL:
        return "lossless"
    if p_value(groups.negated(), -1.0, margin) < TAIL:
        return "worse"
    return "undecided"


def _more(groups: Groups, margin: float, seed: int) -> int | None:
    """The least number of further contexts that decides often enough, to about a tenth, by drawing from these."""
    have = low = high = int(groups.counts.sum())
    while not _decides(groups, high, margin, seed):
        if high >= MOST:
            return None
        low, high = high, min(MOST, 2 * high)
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if _decides(groups, middle, margin, seed) else (middle, high)
    return max(1, high - have)


def _decides(groups: Groups, num: int, margin: float, seed: int) -> bool:
    """Whether `num` contexts drawn from these decide in POWER of all repetitions."""
    shares = groups.counts / groups.counts.sum()
    drawn = np.random.default_rng(seed).multinomial(num, shares, size=REPETITIONS)
    words = [_word(_seen(groups, counts), margin) for counts in drawn]
    return sum(word != "undecided" for word in words) >= POWER * REPETITIONS


def _seen(groups: Groups, counts: np.ndarray) -> Groups:
    return Groups(*(column[counts > 0] for column in (groups.sums, groups.sizes, counts)))
