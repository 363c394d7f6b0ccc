"""The best units of a row, keys or pages of them, until a budget of keys is full: without sorting them."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import PLAIN, Function, compiled, inner
from sahub.compiled.splitting import BUCKETS, split

_MANY, _FEW = 256, 2  # units from which a sample tells where to cut, where half of them or less are taken
_EVERY, _SAMPLE = 16, 512  # of the units one is in the sample, or so many of all
_OUT = np.float32(-np.inf)


@inner
def _free(held: Any, weights: Any, size: Any, keys: Any, marks: Any, free: Any) -> Any:
    """Mark the keys that are kept for certain, and count the others of each unit."""
    marks[:] = False
    for j in range(free.shape[0]):
        free[j] = min(size, keys - j * size)
    for s in range(held.shape[0]):
        if weights[s] == 0:
            if not 0 <= held[s] < keys:
                return False
            marks[held[s]] = True
            free[held[s] // size] -= 1
    return True


@inner
def _sampled(logits: Any, free: Any, need: Any, size: Any, scores: Any, units: Any, room: Any) -> Any:
    """A score that `need` keys most likely lie above, from a sample of many units."""
    count, every = 0, max(_EVERY, logits.shape[0] // _SAMPLE)
    for j in range(0, logits.shape[0], every):
        if free[j] > 0:
            scores[count], units[count] = logits[j], j
            count += 1
    mean = need / (size * every)
    rank = (int(mean + 4 * mean**0.5) + 4) * size
    held = 0
    for place in range(count):
        held += free[units[place]]
    return scores[split(scores, units, free, count, rank, *room)[0]] if rank < held else _OUT


@inner
def _list(logits: Any, free: Any, cut: Any, scores: Any, units: Any, listed: Any) -> Any:
    """List the units with free keys that score `cut` at least, twice: how many, and how many keys they have."""
    found, count, total = 0, 0, 0
    for j in range(logits.shape[0]):  # without a branch, which would go wrong too often
        listed[found] = j
        found += logits[j] >= cut
    for place in range(found):
        j = listed[place]
        if free[j] > 0 and logits[j] > _OUT:
            scores[count], units[count], listed[count] = logits[j], j, j
            count += 1
            total += free[j]
    return count, total


@inner
def _open(scores: Any, at: Any, count: Any, is_whole: Any, near: Any) -> Any:
    """Whether it depends on the order of scores no further apart than `near` what is chosen, unit `at` being last."""
    above, below = -_OUT, _OUT
    for place in range(at):
        above = min(above, scores[place])
    for place in range(at + 1, count):
        below = max(below, scores[place])
    return near > 0 and (scores[at] - below <= near or (not is_whole and above - scores[at] <= near))


@inner
def _note(scores: Any, units: Any, at: Any, near: Any, row: Any, unsure: Any, num_open: Any) -> Any:
    """Write the units whose scores are no further than `near` from that of place `at`: how many are written then."""
    for place in range(scores.shape[0]):
        if abs(scores[place] - scores[at]) <= near:
            if num_open == unsure.shape[0]:
                return -1
            unsure[num_open, 0], unsure[num_open, 1] = row, units[place]
            num_open += 1
    return num_open


@inner
def _write_keys(listed: Any, taken: Any, num_taken: Any, slots: Any) -> Any:
    """Write the listed keys that are taken: how many. None is taken any more."""
    count = 0
    for j in listed:  # without a branch that would go wrong too often
        if count == num_taken:
            break
        slots[count] = j
        count += taken[j]
        taken[j] = False
    return count


@inner
def _write(
    listed: Any, taken: Any, last: Any, left: Any, size: Any, keys: Any, marks: Any, free: Any, slots: Any
) -> Any:
    """The same of the free keys of the listed units that are taken, of the last one the `left` most recent."""
    count = 0
    for j in listed:
        if taken[j]:
            taken[j] = False
            if free[j] == size and j != last:
                for key in range(size):
                    slots[count + key] = j * size + key
                count += size
                continue
            skip = free[j] - left if j == last else 0
            for key in range(j * size, min(j * size + size, keys)):
                if not marks[key]:
                    skip -= 1
                    if skip < 0:
                        slots[count] = key
                        count += 1
    return count


@inner
def _odd(logits: Any) -> Any:
    """How many are no number."""
    count = 0
    for j in range(logits.shape[0]):
        count += logits[j] != logits[j]
    return count


@inner
def _best(
    logits: Any, near: Any, free: Any, need: Any, scores: Any, units: Any, listed: Any, size: Any, room: Any
) -> Any:
    """Order units, the best first: (units that are taken whole, keys of the next one, units, whether it is open)."""
    many = logits.shape[0] >= _MANY and need * _FEW <= logits.shape[0] * size
    cut = _sampled(logits, free, need, size, scores, units, room) - near if many else _OUT
    count, total = _list(logits, free, cut, scores, units, listed)
    if total > need:
        at, left = split(scores, units, free, count, need, *room)
        if scores[at] - near >= cut:  # so that all are listed that are as near
            return at, left, count, _open(scores, at, count, left == free[units[at]], near)
    if cut > _OUT:  # the sample told wrong
        count, total = _list(logits, free, _OUT, scores, units, listed)
    if total <= need:
        return count, 0, count, False
    at, left = split(scores, units, free, count, need, *room)
    return at, left, count, _open(scores, at, count, left == free[units[at]], near)


def _choose(
    first: Any,
    end: Any,
    logits: Any,
    near: Any,
    size: Any,
    ends: Any,
    held: Any,
    held_weights: Any,
    need: Any,
    slots: Any,
    counts: Any,
    unsure: Any,
) -> Any:
    num_rows, num_units = logits.shape
    share, num_open, most = num_rows // held.shape[0], 0, unsure.shape[0] // num_rows
    open_units = unsure[first * most : end * most]
    scores, units = np.empty(num_units, np.float32), np.empty(num_units, np.int64)
    free, listed = np.empty(num_units, np.int64), np.empty(num_units, np.int64)
    room = np.empty(num_units, np.float32), np.empty(num_units, np.int64), np.empty(BUCKETS, np.int64)
    taken, marks = np.zeros(num_units, np.bool_), np.empty(num_units * size, np.bool_)
    for r in range(first, end):
        at, known = r // share, r > first and r % share > 0 and ends[r] == ends[r - 1]
        if not known and not _free(held[at], held_weights[at], size, ends[r], marks, free):
            return -1
        if near[r] < 0:
            continue
        counts[r] = 0
        if need[r] <= 0:
            continue
        if _odd(logits[r]):
            return -1
        at, left, count, is_open = _best(logits[r], near[r], free, need[r], scores, units, listed, size, room)
        if is_open:
            num_open = _note(scores[:count], units, at, near[r], r, open_units, num_open)
            if num_open < 0:
                return -1
        num_taken = at + (left > 0)
        for place in range(num_taken):
            taken[units[place]] = True
        if size == 1:
            counts[r] = _write_keys(listed[:count], taken, num_taken, slots[r])
        else:
            last = units[at] if left > 0 else -1
            counts[r] = _write(listed[:count], taken, last, left, size, ends[r], marks, free, slots[r])
    return num_open


@cache
def choosing() -> Function:
    """The loop.

        choose(first, end, logits, near, size, ends, held, held_weights, need, slots, counts, unsure) -> how many unsure

    first, end  which rows
    logits      fp32 [r, m] of units of `size` keys each; -inf = never chosen
    near        fp32 [r]: scores that are no further apart may be in either order; below 0: the row stands as it is
    ends        int64 [r], at most m * size: the row sees so many keys, the first ones
    held        int64 [w, s] with log-weights fp32: keys that are kept for certain where these are 0; w divides r
    need        int64 [r]: keys to choose. Of the last unit the most recent ones are taken
    slots       int64 [r, n], written: the keys of each row, ascending, of which there are counts, int64 [r]
    unsure      int64 [r * n, 2], written from the place of row `first` on: row and unit of scores that are so near to
                the last chosen one that their order has to be known, where it matters: with those right, and near 0,
                all is. -1: there are more of them, a score is no number, or a kept key lies outside
    """
    arrays = "float32[:,::1],float32[::1],int64,int64[::1],int64[:,:],float32[:,:],int64[::1]"
    return compiled(_choose, f"int64(int64,int64,{arrays},int64[:,::1],int64[::1],int64[:,::1])", **PLAIN)
