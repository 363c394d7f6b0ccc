"""The best units until a budget of keys is full, in front of the others: by buckets of scores, then by halves."""

from typing import Any

import numpy as np

from sahub.compiled.jit import inner

BUCKETS = 128  # of equal width, from the best score to the worst
_SMALL = 48  # units that are not worth buckets
_TIMES = 3  # how often those of one bucket are put into buckets again
_LAST, _OUT = np.float32(BUCKETS - 1), np.float32(np.inf)


@inner
def split(scores: Any, units: Any, sizes: Any, end: Any, need: Any, spare: Any, other: Any, keys: Any) -> Any:
    """Order the first `end` units: those before place `at` are the best, and with unit `at` `need` keys are full.

    (at, the keys that are needed of unit `at`). Together they must hold `need` keys at least; a higher score comes
    first, then the larger number. `spare`, `other`: room for as many scores and units; `keys`: for a number a bucket.
    """
    low, high = 0, end
    for _ in range(_TIMES):
        if high - low > _SMALL:
            low, high, need = _narrow(scores, units, sizes, low, high, need, spare, other, keys)
    while high - low > 1:
        left, right = _divide(scores, units, low, high)
        better = 0
        for place in range(low, right + 1):
            better += sizes[units[place]]
        if better >= need:
            high = right + 1
        else:
            need -= better
            low = right + 1
            if left - low == 1 and sizes[units[low]] >= need:
                high = left
            elif left - low == 1:
                need -= sizes[units[low]]
                low = left
    return low, need


@inner
def _narrow(
    scores: Any, units: Any, sizes: Any, low: Any, high: Any, need: Any, spare: Any, other: Any, keys: Any
) -> Any:
    """Order the units from low to high by buckets: (low, high, need) of the one in which the need is full."""
    best = worst = scores[low]
    for place in range(low, high):
        best, worst = max(best, scores[place]), min(worst, scores[place])
    steps = _LAST / (best - worst)
    if not 0 < steps < _OUT:
        return low, high, need
    keys[:] = 0
    for place in range(low, high):
        keys[int((best - scores[place]) * steps)] += sizes[units[place]]
    bucket = 0
    while keys[bucket] < need:
        need -= keys[bucket]
        bucket += 1
    front, inside, behind = low, 0, high - low  # without branches, which would go wrong too often
    for place in range(low, high):
        score, unit = scores[place], units[place]
        at = int((best - score) * steps)
        scores[front], units[front] = score, unit
        spare[inside], other[inside] = score, unit
        spare[behind - 1], other[behind - 1] = score, unit
        front += at < bucket
        inside += at == bucket
        behind -= at > bucket
    for place in range(inside):
        scores[front + place], units[front + place] = spare[place], other[place]
    for place in range(behind, high - low):
        scores[low + place], units[low + place] = spare[place], other[place]
    return front, front + inside, need


@inner
def _before(scores: Any, units: Any, a: Any, b: Any) -> Any:
    """Whether unit a comes before unit b: the higher score first, then the larger number."""
    return scores[a] > scores[b] or (scores[a] == scores[b] and units[a] > units[b])


@inner
def _divide(scores: Any, units: Any, low: Any, high: Any) -> Any:
    """Order the units from low to high by the median of three of them: (left, right), what is at right or before it is
    no worse than what is at left or behind it; between the two lies at most one."""
    a, b, c = low, (low + high) // 2, high - 1
    if _before(scores, units, b, a):
        a, b = b, a
    if _before(scores, units, c, b):
        b = a if _before(scores, units, c, a) else c
    score, unit = scores[b], units[b]
    left, right = low, high - 1
    while left <= right:
        while scores[left] > score or (scores[left] == score and units[left] > unit):
            left += 1
        while scores[right] < score or (scores[right] == score and units[right] < unit):
            right -= 1
        if left <= right:
            scores[left], scores[right] = scores[right], scores[left]
            units[left], units[right] = units[right], units[left]
            left += 1
            right -= 1
    return left, right
