"""The best units of a row, keys or pages of them, until a budget of keys is full: without sorting them."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import PLAIN, Function, compiled, inner

_MANY, _FEW, _EVERY = 4096, 6, 16  # units from which a sample of every 16th tells where to cut, for a sixth or less


@inner
def _before(scores: Any, units: Any, a: Any, b: Any) -> Any:
    """Whether unit a comes before unit b: the higher score first, then the larger number."""
    return scores[a] > scores[b] or (scores[a] == scores[b] and units[a] > units[b])


@inner
def _split(scores: Any, units: Any, sizes: Any, end: Any, need: Any) -> Any:
    """Order the first `end` units so that those before place `at` are the best, and with unit `at` `need` keys are full.

    (at, the keys that are needed of unit `at`). Together they must hold `need` keys at least.
    """
    low, high = 0, end
    while high - low > 1:
        a, b, c = low, (low + high) // 2, high - 1  # the median of three divides them
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


def _choose(
    logits: Any,
    near: Any,
    size: Any,
    keys: Any,
    held: Any,
    held_weights: Any,
    need: Any,
    slots: Any,
    counts: Any,
    unsure: Any,
) -> Any:
    """See `choosing`."""
    open_ = 0
    num_rows, num_units = logits.shape
    share, each = num_rows // held.shape[0], held.shape[1]
    scores, units = np.empty(num_units, np.float32), np.empty(num_units, np.int64)
    free, marks, taken = np.empty(num_units, np.int64), np.empty(keys, np.bool_), np.empty(num_units, np.bool_)
    for r in range(num_rows):
        if r % share == 0:  # the keys that are kept already, and how many others each unit has
            marks[:] = False
            for j in range(num_units):
                free[j] = min(size, keys - j * size)
            for s in range(each):
                if held_weights[r // share, s] == 0:
                    marks[held[r // share, s]] = True
                    free[held[r // share, s] // size] -= 1
        left, cut, count = need[r], np.float32(-np.inf), 0
        if left <= 0:
            counts[r] = 0
            continue
        for j in range(num_units):
            count += logits[r, j] != logits[r, j]
        if count:
            return -1
        if size == 1 and num_units >= _MANY and left * _FEW <= num_units:
            for j in range(0, num_units, _EVERY):
                if free[j]:
                    scores[count], units[count] = logits[r, j], j
                    count += 1
            mean = left / _EVERY
            rank = int(mean + 4 * mean**0.5) + 4
            if rank < count:
                cut = scores[_split(scores, units, free, count, rank)[0]] - near[r]
        while True:
            count, total = 0, 0
            for j in range(num_units):
                score = logits[r, j]
                if score >= cut and free[j] > 0 and score > -np.inf:
                    scores[count], units[count] = score, j
                    count += 1
                    total += free[j]
            if total >= left or cut == -np.inf:
                break
            cut = np.float32(-np.inf)  # the sample told wrong
        if total > left:
            at, last = _split(scores, units, free, count, left)
            edge, above, below = scores[at], np.float32(np.inf), np.float32(-np.inf)
            for place in range(at):
                above = min(above, scores[place])
            for place in range(at + 1, count):
                below = max(below, scores[place])
            whole = last == free[units[at]]
            if near[r] > 0 and (edge - below <= near[r] or (not whole and above - edge <= near[r])):
                for place in range(count):
                    if abs(scores[place] - edge) <= near[r]:
                        if open_ == unsure.shape[0]:
                            return -1
                        unsure[open_, 0], unsure[open_, 1] = r, units[place]
                        open_ += 1
        else:
            at, last = count, 0
        taken[:] = 0
        for place in range(at):
            taken[units[place]] = 1
        if last:
            taken[units[at]] = 1
        count = 0
        for j in range(num_units):
            if taken[j]:
                skip = free[j] - last if last and j == units[at] else 0  # of the last unit the most recent keys
                for key in range(j * size, min(j * size + size, keys)):
                    if not marks[key]:
                        if skip == 0:
                            slots[r, count] = key
                            count += 1
                        else:
                            skip -= 1
        counts[r] = count
    return open_


@cache
def choosing() -> Function:
    """The loop.

        choose(logits, near, size, keys, held, held_weights, need, slots, counts, unsure) -> number of `unsure`

    logits  fp32 [r, m] of units of `size` keys each, the last of `keys` keys in the last unit; rows stand for one row of
            a call and a head each. -inf = never chosen
    near    fp32 [r]: scores that are no further apart may be in either order
    held    int64 [w, s] with log-weights fp32: keys that are kept for certain where these are 0; w divides r
    need    int64 [r]: keys to choose. Of the last unit the most recent ones are taken
    slots   int64 [r, n], written: the keys of each row, ascending, of which there are counts, int64 [r]
    unsure  int64 [n, 2], written: row and unit of scores that are so near to the last chosen one that their order has
            to be known, where it matters: with those right, and near 0, all is. -1: they are more, or one is no number
    """
    arrays = "float32[:,::1],float32[::1],int64,int64,int64[:,:],float32[:,:],int64[::1],int64[:,::1],int64[::1],int64[:,::1]"
    return compiled(_choose, f"int64({arrays})", **PLAIN)
