"""Products of few rows with many keys in fp64, rounded once: each sum in one order, whatever is computed beside it."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import SUMS, Function, compiled, inner_sums

_TOGETHER = 4


def _multiply(rows: Any, keys: Any, place: Any, last: Any, out: Any) -> None:
    batch, units, num, dim = rows.shape
    batch_step, head_step, key_step = place[:3]
    num_keys = out.shape[3] - last.shape[2]
    doubles = np.zeros((num + _TOGETHER, dim), np.float64)
    for b in range(batch):
        for u in range(units):
            doubles[:num] = rows[b, u]
            for m in range(out.shape[3]):
                key = keys[b * batch_step + u * head_step + m * key_step] if m < num_keys else last[b, u, 0]
                for r in range(0, num, _TOGETHER):
                    _dots(doubles, r, key, out[b, u, :, m])


@inner_sums
def _dots(rows: Any, first: Any, key: Any, out: Any) -> None:
    """Four products, so that the key is read once for all."""
    a = b = c = d = 0.0
    for j in range(key.shape[0]):
        one = np.float64(key[j])
        a += rows[first, j] * one
        b += rows[first + 1, j] * one
        c += rows[first + 2, j] * one
        d += rows[first + 3, j] * one
    for at, total in enumerate((a, b, c, d)):
        if first + at < out.shape[0]:
            out[first + at] = np.float32(total)


@cache
def multiplying() -> Function:
    """The loop.

        multiply(rows, keys, place, last, out)

    rows   fp32 [b, u, r, d]
    keys   fp32 [n, d]: memory
    place  int64 [7]: where key m of KV head u lies in it, see sahub.attention.table
    last   fp32 [b, u, 1 or 0, d]: the last key of each, where it lies apart from the others
    out    fp32 [b, u, r, m], written
    """
    four = "float32[:,:,:,::1]"
    return compiled(_multiply, f"void({four},float32[:,::1],int64[::1],{four},{four})", **SUMS)
