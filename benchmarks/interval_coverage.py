"""How often intervals of paired differences lie beyond the truth: `python benchmarks/interval_coverage.py [draws]`.

An interval above the truth says `not worse by the margin` wrongly for the margin that is the truth's loss, and `better`
where nothing was won; so one number stands for every margin. At most 2.5 % is promised of either end. One question a
context is enumerated, several are simulated (then 3 standard errors are allowed): half an hour on one core with 2,000
draws a cell.
"""

import sys
from collections.abc import Iterator
from itertools import product
from random import Random
from typing import NamedTuple

import numpy as np
from scipy.stats import binom

from sahub.stats.bounded import Groups, grouped, p_value
from sahub.stats.intervals import TAIL

SIZES = (30, 60, 100, 200, 500)  # questions
LOSSES = (0.0, 0.01, 0.02, 0.05, 0.1)
GAINS = (0.0, 0.01, 0.02, 0.05)
CLUSTERS = ((2,), (4,), (8,), tuple(range(1, 9)))  # questions of a context
ALIKE = (0.0, 0.5, 1.0)  # share of contexts all of whose questions fare alike


class Truth(NamedTuple):
    """n questions, of which a share is lost and a share won."""

    n: int
    loss: float
    gain: float

    @property
    def turned(self) -> "Truth":
        """What the other of the pair sees; its upper ends are the lower ends of this one."""
        return Truth(self.n, self.gain, self.loss)


def above(truth: Truth) -> float:
    """P(the interval of n pairs lies above gain - loss), by enumeration: it does from some number of gains on."""
    found, n = 0.0, truth.n
    for losses in range(n + 1):
        chance = binom.pmf(losses, n, truth.loss)
        if chance < 1e-12:
            continue
        low, high = 0, n - losses + 1
        while low < high:
            middle = (low + high) // 2
            groups = Groups(np.array([1.0, -1.0, 0.0]), np.ones(3), np.array([middle, losses, n - losses - middle]))
            speaks = p_value(groups, -1.0, truth.gain - truth.loss) < TAIL
            low, high = (low, middle) if speaks else (middle + 1, high)
        found += chance * binom.sf(low - 1, n - losses, truth.gain / (1 - truth.loss))
    return float(found)


def missed(truth: Truth, sizes: tuple[int, ...], alike: float, draws: int) -> tuple[float, float]:
    """Shares of simulated samples whose interval lies above, and below, the truth."""
    chance, high, low = Random(f"{truth} {sizes} {alike}"), 0, 0
    for _ in range(draws):
        groups = drawn(chance, truth, sizes, alike)
        high += p_value(groups, -1.0, truth.gain - truth.loss) < TAIL
        low += p_value(groups.negated(), -1.0, truth.loss - truth.gain) < TAIL
    return high / draws, low / draws


def drawn(chance: Random, truth: Truth, sizes: tuple[int, ...], alike: float) -> Groups:
    """n paired outcomes in contexts of these sizes, of which a share has outcomes that are all alike."""
    values: list[float] = []
    labels: list[int] = []
    while len(values) < truth.n:
        size, same = chance.choice(sizes), chance.random() < alike
        shares = (truth.loss, truth.gain, 1 - truth.loss - truth.gain)
        found = chance.choices((-1.0, 1.0, 0.0), shares, k=1 if same else size)
        labels += [len(labels)] * size
        values += found * size if same else found
    return grouped(values, labels)


def cells(truth: Truth, draws: int) -> Iterator[tuple[str, float, float]]:
    """A line for each way of asking, the larger share of its two ends, and what is allowed."""
    ends = above(truth), above(truth.turned)
    yield f"one a context               {_percent(ends)}", max(ends), TAIL + 1e-9
    for sizes, alike in product(CLUSTERS, ALIKE):
        ends = missed(truth, sizes, alike, draws)
        line = f"{sizes[0]}-{sizes[-1]} a context, {alike:4.0%} alike {_percent(ends)}"
        yield line, max(ends), TAIL + 3 * (TAIL * (1 - TAIL) / draws) ** 0.5


def _percent(ends: tuple[float, float]) -> str:
    return f"above the truth {ends[0]:5.2%} below {ends[1]:5.2%}"


def main() -> None:
    """Print every cell; exit 1 where one is beyond what is promised."""
    beyond, draws = 0, int([*sys.argv[1:], "2000"][0])
    for truth in map(Truth, *zip(*product(SIZES, LOSSES, GAINS), strict=True)):
        for line, worst, allowed in cells(truth, draws):
            beyond += worst > allowed
            place = f"n {truth.n:3} loss {truth.loss:4.0%} gain {truth.gain:3.0%}"
            sys.stdout.write(f"{place}  {line}{'  BEYOND' if worst > allowed else ''}\n")
            sys.stdout.flush()
    sys.exit(f"{beyond} cells beyond what is promised" if beyond else 0)


if __name__ == "__main__":
    main()
