"""Products of few rows with many keys in fp64, rounded once: each sum in one order, whatever is computed beside it."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import SUMS, Function, compiled, inner


def _multiply(rows: Any, keys: Any, place: Any, last: Any, out: Any) -> None:
    batch, units, num, dim = rows.shape
    batch_step, head_step, key_step = place[:3]
    num_keys = out.shape[3] - last.shape[2]
    key, doubles = np.empty(dim, np.float64), np.empty((num, dim), np.float64)
    for b in range(batch):
        for u in range(units):
            for r in range(num):
                for j in range(dim):
                    doubles[r, j] = rows[b, u, r, j]
            for m in range(num_keys + last.shape[2]):
                single = keys[b * batch_step + u * head_step + m * key_step] if m < num_keys else last[b, u, 0]
                for j in range(dim):
                    key[j] = single[j]
                for r in range(num):
                    out[b, u, r, m] = _dot(doubles[r], key)


@inner
def _dot(one: Any, other: Any) -> Any:
    total = 0.0
    for j in range(one.shape[0]):
        total += one[j] * other[j]
    return np.float32(total)


@cache
def multiplying() -> Function:
    """The loop.

        multiply(rows, keys, place, last, out)

    rows   fp32 [b, u, r, d]
    keys   fp32 [n, d]: memory
    place  int64 [6]: where key m of KV head u lies in it, see sahub.attention.table
    last   fp32 [b, u, 1 or 0, d]: the last key of each, where it lies apart from the others
    out    fp32 [b, u, r, m], written
    """
    four = "float32[:,:,:,::1]"
    return compiled(_multiply, f"void({four},float32[:,::1],int64[::1],{four},{four})", **SUMS)
