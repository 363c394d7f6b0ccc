"""Random numbers of rows and keys: SplitMix64 of both, of which a number in [0, 1) is made."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import PLAIN, Function, compiled, inner

_MIX = np.uint64(0x9E3779B97F4A7C15), np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_SHIFTS = np.uint64(30), np.uint64(27), np.uint64(31), np.uint64(40)
_UNIT = np.float32(2.0**-24)


def _draw(rows: Any, ranks: Any, out: Any) -> None:
    batch, heads, num, _ = out.shape
    for b in range(batch):
        for h in range(heads):
            for q in range(num):
                rank = ranks[min(b, ranks.shape[0] - 1), min(q, ranks.shape[1] - 1)]
                _mixed(rows[min(b, rows.shape[0] - 1), h, q], rank, out[b, h, q])


@inner
def _mixed(row: Any, ranks: Any, out: Any) -> None:
    for k in range(out.shape[0]):
        x = (row ^ ranks[k]) + _MIX[0]
        x = (x ^ (x >> _SHIFTS[0])) * _MIX[1]
        x = (x ^ (x >> _SHIFTS[1])) * _MIX[2]
        x = x ^ (x >> _SHIFTS[2])
        out[k] = np.float32(np.int32(x >> _SHIFTS[3])) * _UNIT


@cache
def drawing() -> Function:
    """The loop.

        draw(rows, ranks, out)

    rows   uint64 [b or 1, h, q], ranks uint64 [b or 1, q or 1, k]: numbers that are mixed already
    out    fp32 [b, h, q, k], written
    """
    three = "uint64[:,:,::1]"
    return compiled(_draw, f"void({three},{three},float32[:,:,:,::1])", **PLAIN)
