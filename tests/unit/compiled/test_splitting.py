"""The best units in front: against sorting, with ties, outliers and infinities."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from sahub.compiled.splitting import BUCKETS, split

SHAPES = {
    "spread": lambda rng, n: rng.standard_normal(n),
    "ties": lambda rng, n: rng.integers(0, 4, n) / 2,
    "equal": lambda rng, n: np.ones(n),
    "one far above": lambda rng, n: np.where(np.arange(n) == n // 2, 1e30, rng.standard_normal(n)),
    "far below": lambda rng, n: np.where(rng.random(n) < 0.2, -3e38, rng.standard_normal(n)),
    "infinite": lambda rng, n: np.where(rng.random(n) < 0.1, np.inf, rng.standard_normal(n)),
    "never": lambda rng, n: np.where(rng.random(n) < 0.5, -np.inf, rng.standard_normal(n)),
    "next to each other": lambda rng, n: np.nextafter(np.float32(1), np.float32(2)) + rng.integers(0, 3, n) * 2**-23,
    "tiny": lambda rng, n: rng.integers(0, 9, n) * 1e-45,
}


@given(
    shape=st.sampled_from(sorted(SHAPES)), num=st.integers(1, 700), size=st.sampled_from([1, 16]),
    part=st.floats(0, 1), seed=st.integers(0, 2**31),
)  # fmt: skip
def test_the_best_are_those_of_sorting(shape, num, size, part, seed):
    rng = np.random.default_rng(seed)
    every = rng.permutation(num + 5)[:num].astype(np.int64)
    given_scores = SHAPES[shape](rng, num).astype(np.float32)
    sizes = rng.integers(1, size + 1, num + 5).astype(np.int64)
    need = max(1, int(part * sizes[every].sum()))
    scores, units = given_scores.copy(), every.copy()
    room = np.empty(num, np.float32), np.empty(num, np.int64), np.empty(BUCKETS, np.int64)
    at, left = split(scores, units, sizes, num, need, *room)

    order = np.lexsort((every, given_scores))[::-1]
    filled = np.cumsum(sizes[every[order]])
    last = int(np.searchsorted(filled, need))
    assert at == last
    assert left == need - (filled[last - 1] if last else 0)
    assert units[at] == every[order[last]]
    assert sorted(units[:at]) == sorted(every[order[:last]])
    assert sorted(zip(units, scores, strict=True)) == sorted(zip(every, given_scores, strict=True))
