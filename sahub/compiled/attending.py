"""Attention over chosen keys, read where they lie: a pass over the keys, one over the values."""

import math
from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import SUMS, Function, compiled, inner, inner_sums, prefetch
from sahub.compiled.vectors import (
    WIDE,
    add_scaled,
    add_scaled_four,
    add_scaled_four_twice,
    dot_four,
    dot_four_twice,
    number,
)

_AHEAD = 16  # keys that are asked of memory before they are needed
_NEAR = 1 << 19  # bytes: what is no larger stays in a core's cache from row to row, where asking takes a third of all
_LINE = 64  # bytes
_TOGETHER = 4  # keys
_EMPTY = np.float32(-np.inf)
_LEAST = np.float32(-87)
_LOG2E, _LN2 = np.float32(1.4426950408889634), (np.float32(0.693359375), np.float32(-2.12194440e-4))


def _attend(
    first: Any,
    end: Any,
    q: Any,
    k: Any,
    v: Any,
    k_place: Any,
    v_place: Any,
    slots: Any,
    weights: Any,
    formula: Any,
    sinks: Any,
    out: Any,
) -> Any:
    _, units, rows, heads, _ = q.shape
    room = max(slots.shape[3], _TOGETHER)
    shares, powers = np.empty((heads, room), np.float32), np.empty(room, np.int32)
    k_rows, v_rows, logs = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.float32)
    sink = np.full(heads, _EMPTY, np.float32)
    for one in range(first, end):
        b, u, r = one // (units * rows), one // rows % units, one % rows
        if sinks.shape[0]:
            sink[:] = sinks[u * heads : (u + 1) * heads]
        k_at, v_at = _place(k_place, b, u, units), _place(v_place, b, u, units)
        num = _kept(slots[b, u, r], weights[b, u, r], k_at, v_at, k_rows, v_rows, logs)
        if num < 0:
            return False
        k_ahead, v_ahead = _ahead(k, k_at[4], slots[b, u]), _ahead(v, v_at[4], slots[b, u])
        _dots(q[b, u, r], k, k_rows, num, k_ahead, shares)
        for i in range(heads):
            _softmax(shares[i, :num], logs[:num], formula, sink[i], powers)
        _sums(shares, v, v_rows[:num], v_ahead, out[b, u, r])
    return True


@inner
def _place(numbers: Any, b: Any, u: Any, units: Any) -> Any:
    """Where the keys of unit u of sequence b lie: first row, step, from key `shared` on `jump` rows further; keys."""
    batch_step, head_step, key_step, groups, shared, jump, length = numbers
    return b * batch_step + u * groups // units * head_step, key_step, shared, b * jump, length


@inner
def _row(slot: Any, at: Any) -> Any:
    return at[0] + slot * at[1] + (at[3] if slot >= at[2] else 0)


@inner
def _kept(slots: Any, weights: Any, k_at: Any, v_at: Any, k_rows: Any, v_rows: Any, logs: Any) -> Any:
    """Write where the keys and values of slots that are not empty lie, and their log-weights: how many; -1: outside."""
    num = 0
    for s in range(slots.shape[0]):
        slot, logs[num] = slots[s], weights[s]
        if logs[num] == _EMPTY:
            continue
        if not 0 <= slot < k_at[4]:
            return -1
        k_rows[num], v_rows[num] = _row(slot, k_at), _row(slot, v_at)
        num += 1
    return num


@inner
def _ahead(memory: Any, num_keys: Any, slots: Any) -> Any:
    """How many slots to ask ahead; as many as there are = nothing. slots: [q, s], of all rows of a unit."""
    near = num_keys * memory.shape[1] * memory.itemsize <= _NEAR and slots.size > num_keys
    return slots.shape[1] if near else _AHEAD


@inner
def _ask(memory: Any, rows: Any, first: Any, end: Any) -> None:
    """Ask memory for some rows that will be needed."""
    for s in range(first, min(end, rows.shape[0])):
        for j in range(0, memory.shape[1], _LINE // memory.itemsize):
            prefetch(memory, rows[s] * memory.shape[1] + j)


@inner_sums
def _dots(q: Any, k: Any, rows: Any, num: Any, ahead: Any, out: Any) -> None:
    """Products fp32 [n, num or more] of queries [n, d] with the first `num` rows; there is room for four."""
    heads, dim = q.shape
    whole = dim - dim % WIDE
    for s in range(num, _TOGETHER if num else 0):
        rows[s] = rows[0]
    for start in range(0, num, _TOGETHER):
        _ask(k, rows[:num], start + ahead, start + ahead + _TOGETHER)
        at = max(0, min(start, num - _TOGETHER))  # the last are four again
        for i in range(0, heads - 1, 2):
            dot_four_twice(q, i, k, rows, at, whole, out)
        if heads % 2:
            dot_four(q, heads - 1, k, rows, at, whole, out)
        for i in range(heads if whole < dim else 0):
            for s in range(at, at + _TOGETHER):
                for j in range(whole, dim):
                    out[i, s] += q[i, j] * number(k[rows[s], j])


@inner_sums
def _softmax(dots: Any, logs: Any, formula: Any, sink: Any, powers: Any) -> None:
    """Shares of products, in place; formula: scale and bound. Of one more logit that has no value; all -inf: 0."""
    for s in range(dots.shape[0]):
        dots[s] *= formula[0]
    for s in range(dots.shape[0] if formula[1] > 0 else 0):
        dots[s] = formula[1] * np.float32(math.tanh(dots[s] / formula[1]))
    top = sink
    for s in range(dots.shape[0]):
        dots[s] += logs[s]
        top = max(top, dots[s])
    if top == _EMPTY:
        top = np.float32(0)
    _exp(dots, top, powers)
    total = np.float32(math.exp(sink - top))
    for s in range(dots.shape[0]):
        total += dots[s]
    share = np.float32(1) / total if total > 0 else np.float32(1)
    for s in range(dots.shape[0]):
        dots[s] *= share


@inner
def _exp(x: Any, top: Any, powers: Any) -> None:
    """exp(x - top) in place, for numbers of at most 0, to two units of the last place: several at a time.

    2^n * exp(r) with |r| <= log(2) / 2, by Taylor's series; below `_LEAST`, where fp32 ends, 0. powers: int32, as many.
    """
    for s in range(x.shape[0]):
        y = x[s] - top
        y = _LEAST if y < _LEAST else y
        n = np.floor(y * _LOG2E + np.float32(0.5))
        r = (y - n * _LN2[0]) - n * _LN2[1]
        powers[s] = np.int32(n)
        p = np.float32(1 / 720)
        p = p * r + np.float32(1 / 120)
        p = p * r + np.float32(1 / 24)
        p = p * r + np.float32(1 / 6)
        p = p * r + np.float32(0.5)
        p = p * r + np.float32(1)
        p = p * r + np.float32(1)
        x[s] = np.float32(0) if y == _LEAST else p
    for s in range(x.shape[0]):
        powers[s] = (powers[s] + np.int32(127)) << np.int32(23)
    scales = powers.view(np.float32)
    for s in range(x.shape[0]):
        x[s] *= scales[s]


@inner_sums
def _sums(shares: Any, v: Any, rows: Any, ahead: Any, out: Any) -> None:
    """Sums fp32 [n, dv] of the rows of values, each times its share [n, s]."""
    (heads, wide), size = out.shape, rows.shape[0]
    whole, fours = wide - wide % WIDE, size - size % _TOGETHER
    out[:] = 0
    for start in range(0, fours, _TOGETHER):
        _ask(v, rows, start + ahead, start + ahead + _TOGETHER)
        for i in range(0, heads - 1, 2):
            add_scaled_four_twice(out, i, v, rows, start, whole, shares)
        if heads % 2:
            add_scaled_four(out, heads - 1, v, rows, start, whole, shares)
    for s in range(fours, size):
        for i in range(heads):
            add_scaled(out, i, v, rows, s, whole, shares)
    for s in range(size if whole < wide else 0):
        for i in range(heads):
            for j in range(whole, wide):
                out[i, j] += shares[i, s] * number(v[rows[s], j])


@cache
def attending(kind: str) -> Function:
    """The loop for keys and values of a numpy dtype: float32, or int16, which are the bits of bfloat16.

        attend(first, end, q, k, v, k_place, v_place, slots, weights, formula, sinks, out) -> whether slots are inside

    first, end  which rows, flat over (b, u, q)
    q           fp32 [b, u, q, n, d]: n query heads that chose together, u such units a sequence
    k, v        [rows, d], [rows, dv]: memory
    k_place     int64 [7]: where a key of a KV head lies in memory, see sahub.attention.table; v_place of v
    slots       int64 [b, u, q, s], weights fp32, the same: log-weights, -inf = empty slot
    formula     fp32 [2]: scale; bound of the logits, 0 = none
    sinks       fp32 [u * n], a logit of each head; or [0]
    out         fp32 [b, u, q, n, dv], written
    """
    memory, place = f"{kind}[:,::1]", "int64[::1]"
    arrays = f"float32[:,:,:,:,::1],{memory},{memory},{place},{place},int64[:,:,:,:],float32[:,:,:,:]"
    return compiled(_attend, f"boolean(int64,int64,{arrays},float32[::1],float32[::1],float32[:,:,:,:,::1])", **SUMS)
