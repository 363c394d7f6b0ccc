"""How many keys a KV head loads for the query heads that share it."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import PLAIN, Function, compiled


def _count(slots: Any, weights: Any, marks: Any, out: Any) -> Any:
    batch, units, rows, size = slots.shape
    heads, seen = units // out.shape[1], 0
    for b in range(batch):
        for g in range(out.shape[1]):
            for r in range(rows):
                seen, count = seen + 1, 0
                for i in range(g * heads, g * heads + heads):
                    for s in range(size):
                        if weights[b, i, r, s] > -np.inf:
                            slot = slots[b, i, r, s]
                            if not 0 <= slot < marks.shape[0]:
                                return False
                            count += marks[slot] != seen
                            marks[slot] = seen
                out[b, g, r] = count
    return True


@cache
def counting() -> Function:
    """The loop.

        count(slots, weights, marks, out) -> whether all slots are inside

    slots  int64 [b, u, q, s] with log-weights fp32: keys of each head, -inf = empty slot
    marks  int64 [k] of zeros, one for each key
    out    int64 [b, g, q], written: different keys of the u / g heads of each KV head
    """
    return compiled(_count, "boolean(int64[:,:,:,:],float32[:,:,:,:],int64[::1],int64[:,:,::1])", **PLAIN)
