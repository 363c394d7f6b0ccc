"""What paired comparisons say: lossless within a margin, worse, or undecided, and how many contexts would decide."""

from collections.abc import Hashable, Iterable, Sequence
from functools import lru_cache
from typing import Literal, NamedTuple

import numpy as np

from sahub.config.settings import Validate
from sahub.errors import ScoreError
from sahub.stats.bounded import Groups, p_value
from sahub.stats.intervals import TAIL, holm, paired

POWER = 0.8  # share of repetitions that must be decided
REPETITIONS = 100
MOST = 10_000  # contexts

Word = Literal["lossless", "worse", "undecided"]


class Verdict(NamedTuple):
    """What is known of a mean difference, with at most 2.5 % of wrong verdicts of each kind.

    lossless   not lower by the margin or more
    worse      lower by more than the margin
    undecided  either may be; `more_contexts` like these would tell, in 4 of 5 repetitions (None: not even 10,000)
    """

    word: Word
    margin: float
    more_contexts: int | None


def verdict(
    sparse: Sequence[float],
    dense: Sequence[float],
    clusters: Iterable[Hashable] | None = None,
    *,
    margin: float = Validate.margin,
    seed: int = 0,
) -> Verdict:
    """Of scores in [0, 1] of the same questions: whether `sparse` loses less than `margin` to `dense`.

    clusters  the context of every question (None: each has its own). Raises ScoreError.
    """
    return verdicts([paired(sparse, dense, clusters)], [margin], seed=seed)[0]


def verdicts(cells: Sequence[Groups], margins: Sequence[float], *, seed: int = 0) -> list[Verdict]:
    """The `words` of several cells, and what the undecided ones lack: contexts at the level that they then face."""
    found = words(cells, margins)
    tails = tuple(TAIL / max(1, len(cells) - found.count(word)) for word in ("lossless", "worse"))
    return [
        Verdict(
            word, margin, _more(_columns(groups), margin, (tails[0], tails[1]), seed) if word == "undecided" else None
        )
        for word, groups, margin in zip(found, cells, margins, strict=True)
    ]


def words(cells: Sequence[Groups], margins: Sequence[float]) -> list[Word]:
    """Of the differences of several cells, and the margin of each: words that hold together.

    With 97.5 % no lossless of them all is wrong, and with 97.5 % no worse (Holm, for each of the two).
    Raises ScoreError for a margin that is no share.
    """
    if bad := [margin for margin in margins if not 0 < margin <= 1]:
        raise ScoreError(f"margin={bad[0]}: must be a share of the score in (0, 1]")
    safe = [p_value(groups, -1.0, -margin) for groups, margin in zip(cells, margins, strict=True)]
    lost = [p_value(groups.negated(), -1.0, margin) for groups, margin in zip(cells, margins, strict=True)]
    lossless, worse = ([p < TAIL for p in holm(each)] for each in (safe, lost))
    return [
        "lossless" if one else "worse" if other else "undecided" for one, other in zip(lossless, worse, strict=True)
    ]


def _columns(groups: Groups) -> tuple[tuple[float, ...], ...]:
    return tuple(tuple(column.tolist()) for column in groups)


@lru_cache(maxsize=1024)  # summary, tables and page of a run ask the same; graded scores take a third of a second
def _more(columns: tuple[tuple[float, ...], ...], margin: float, tails: tuple[float, float], seed: int) -> int | None:
    """The least number of further contexts that decides often enough, to about a tenth, by drawing from these."""
    groups = Groups(*(np.array(column) for column in columns))
    have = low = high = int(groups.counts.sum())
    while not _often(groups, high, margin, tails, seed):
        if high >= MOST:
            return None
        low, high = high, min(MOST, 2 * high)
    while high - low > max(1, high // 10):
        middle = (low + high) // 2
        low, high = (low, middle) if _often(groups, middle, margin, tails, seed) else (middle, high)
    return max(1, high - have)


def _often(groups: Groups, num: int, margin: float, tails: tuple[float, float], seed: int) -> bool:
    """Whether `num` contexts drawn from these decide in POWER of all repetitions."""
    shares = groups.counts / groups.counts.sum()
    drawn = np.random.default_rng(seed).multinomial(num, shares, size=REPETITIONS)
    alike, times = np.unique(drawn, axis=0, return_counts=True)
    decided = sum(
        int(count) for counts, count in zip(alike, times, strict=True) if _decides(_seen(groups, counts), margin, tails)
    )
    return decided >= POWER * REPETITIONS


def _decides(groups: Groups, margin: float, tails: tuple[float, float]) -> bool:
    lossless, worse = tails
    if groups.mean > -margin:  # the other is far from any level, and each costs a millisecond
        return p_value(groups, -1.0, -margin) < lossless
    return p_value(groups.negated(), -1.0, margin) < worse


def _seen(groups: Groups, counts: np.ndarray) -> Groups:
    return Groups(*(column[counts > 0] for column in (groups.sums, groups.sizes, counts)))
