"""Products of few rows with many keys: in fp64, rounded once, each sum in one order; or of keys in 16 bits, nearly."""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import SUMS, Function, compiled, inner_sums
from sahub.compiled.present import LANES

_MOST = np.float32(2.0**111)  # the sum of a row, from which sums of codes overflow


def _multiply(first: Any, end: Any, rows: Any, keys: Any, place: Any, last: Any, out: Any) -> None:
    _, units, num, dim = rows.shape
    batch_step, head_step, key_step = place[:3]
    num_keys = out.shape[3] - last.shape[2]
    doubles = np.zeros((num + LANES, dim), np.float64)
    for one in range(first, end):
        b, u = one // units, one % units
        doubles[:num] = rows[b, u]
        for m in range(out.shape[3]):
            key = keys[b * batch_step + u * head_step + m * key_step] if m < num_keys else last[b, u, 0]
            for r in range(0, num, LANES):
                _dots(doubles, r, key, out[b, u, :, m])


@inner_sums
def _dots(rows: Any, first: Any, key: Any, out: Any) -> None:
    """Four products in the rows' numbers, so that the key is read once for all."""
    a = b = c = d = rows.dtype.type(0)
    for j in range(key.shape[0]):
        one = rows.dtype.type(key[j])
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

        multiply(first, end, rows, keys, place, last, out)

    first, end  which units, flat over (b, u)
    rows        fp32 [b, u, r, d]
    keys        fp32 [n, d]: memory
    place       int64 [7]: where key m of KV head u lies in it, see sahub.attention.table
    last        fp32 [b, u, 1 or 0, d]: the last key of each, where it lies apart from the others
    out         fp32 [b, u, r, m], written
    """
    four = "float32[:,:,:,::1]"
    return compiled(_multiply, f"void(int64,int64,{four},float32[:,::1],int64[::1],{four},{four})", **SUMS)


def _glance(
    first: Any,
    end: Any,
    rows: Any,
    codes: Any,
    reals: Any,
    last: Any,
    off: Any,
    rounding: Any,
    out: Any,
    slack: Any,
) -> None:
    _, units, num, _ = rows.shape
    closed, sums = out.shape[3] - last.shape[2], np.empty(num, np.float32)
    for one in range(first, end):
        b, u = one // units, one % units
        _sizes(rows[b, u], last[b, u], off[b, u], rounding, sums, slack[b, u])
        for m in range(out.shape[3]):
            for r in range(0, num, LANES):
                if m < closed:
                    _dots(rows[b, u], r, codes[b, u, m], out[b, u, :, m])
                    for i in range(r, r + LANES):
                        out[b, u, i, m] = reals[b, u, m, 0] * sums[i] + reals[b, u, m, 1] * out[b, u, i, m]
                else:
                    _dots(rows[b, u], r, last[b, u, 0], out[b, u, :, m])


@inner_sums
def _sizes(rows: Any, last: Any, off: Any, rounding: Any, sums: Any, slack: Any) -> None:
    """The sum of each row, and by how much its products may be off."""
    odd = np.float32(0)  # or NaN
    for end in last:
        for j in range(end.shape[0]):
            off = max(off, abs(end[j]) * rounding)
            odd += end[j] * np.float32(0)
    for r in range(rows.shape[0]):
        sums[r] = size = np.float32(0)
        for j in range(rows.shape[1]):
            sums[r] += rows[r, j]
            size += abs(rows[r, j])
        slack[r] = size * off + odd if size < _MOST else np.float32(np.nan)


@cache
def glancing() -> Function:
    """The loop.

        glance(first, end, rows, codes, reals, last, off, rounding, out, slack)

    first, end  which units, flat over (b, u)
    rows        fp32 [b, u, r, d], r a multiple of 4
    codes       uint16 [b, u, m or more, d]
    reals       fp32 [b, u, m or more, 2]: low and step, key m is low + step * code
    last        fp32 [b, u, 1 or 0, d]: a key behind them, as it is
    off         fp32 [b, u]: by how much the product of a key with a row of absolute sum 1 may be off
    rounding    that of `last`, relative to its largest number
    out         fp32 [b, u, r, m], written: sums in any order
    slack       fp32 [b, u, r], written: by how much those of a row may be off
    """
    four = "float32[:,:,:,::1]"
    arrays = f"{four},uint16[:,:,:,::1],{four},{four},float32[:,::1],float32,{four},float32[:,:,::1]"
    return compiled(_glance, f"void(int64,int64,{arrays})", **SUMS)


def _settle(rows: Any, keys: Any, place: Any, last: Any, row: Any, unit: Any, out: Any) -> None:
    _, units, num, dim = rows.shape
    batch_step, head_step, key_step = place[:3]
    num_keys = place[6]
    for i in range(out.shape[0]):
        b, u, r, m = row[i] // (units * num), row[i] // num % units, row[i] % num, unit[i]
        one, total = rows[b, u, r], 0.0
        key = keys[b * batch_step + u * head_step + m * key_step] if m < num_keys else last[b, u, 0]
        for j in range(dim):
            total += np.float64(one[j]) * np.float64(key[j])
        out[i] = np.float32(total)


@cache
def settling() -> Function:
    """The loop.

        settle(rows, keys, place, last, row, unit, out)

    rows, keys, place, last  as of `multiplying`
    row, unit                int64 [n]: a row, flat over (b, u, r), and a key
    out                      fp32 [n], written: their product in fp64, rounded once
    """
    four = "float32[:,:,:,::1]"
    arguments = f"{four},float32[:,::1],int64[::1],{four},int64[:],int64[:],float32[::1]"
    return compiled(_settle, f"void({arguments})", **SUMS)
