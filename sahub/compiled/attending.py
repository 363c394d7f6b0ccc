"""Attention over chosen keys, read where they lie: a pass over the keys, one over the values."""

import math
from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import SUMS, Function, compiled, inner, inner_sums, prefetch
from sahub.compiled.vectors import WIDE, add_scaled_four, dot_four, number

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
    shares, powers = np.empty((heads, slots.shape[3]), np.float32), np.empty(slots.shape[3], np.int32)
    sink = np.full(heads, _EMPTY, np.float32)
    for one in range(first, end):
        b, u, r = one // (units * rows), one // rows % units, one % rows
        if sinks.shape[0]:
            sink[:] = sinks[u * heads : (u + 1) * heads]
        k_at, v_at = _place(k_place, b, u, units), _place(v_place, b, u, units)
        k_ahead, v_ahead = _ahead(k, k_at[4], slots[b, u]), _ahead(v, v_at[4], slots[b, u])
        if not _dots(q[b, u, r], k, k_at, k_ahead, slots[b, u, r], weights[b, u, r], formula, shares):
            return False
        for i in range(heads):
            _softmax(shares[i], sink[i], powers)
        _sums(shares, v, v_at, v_ahead, slots[b, u, r], weights[b, u, r], out[b, u, r])
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
def _ahead(memory: Any, num_keys: Any, slots: Any) -> Any:
    """How many slots to ask ahead; as many as there are = nothing. slots: [q, s], of all rows of a unit."""
    near = num_keys * memory.shape[1] * memory.itemsize <= _NEAR and slots.size > num_keys
    return slots.shape[1] if near else _AHEAD


@inner
def _ask(memory: Any, row: Any) -> None:
    """Ask memory for a row that will be needed."""
    for j in range(0, memory.shape[1], _LINE // memory.itemsize):
        prefetch(memory, row * memory.shape[1] + j)


@inner_sums
def _dots(q: Any, k: Any, at: Any, ahead: Any, slots: Any, weights: Any, formula: Any, logits: Any) -> Any:
    """Logits fp32 [n, s] of queries [n, d]; formula: scale and bound. Whether all lie inside."""
    heads, dim = q.shape
    size, whole, num = slots.shape[0], dim - dim % WIDE, 0
    waiting, rows = np.empty(_TOGETHER, np.int64), np.empty(_TOGETHER, np.int64)
    found = np.empty(_TOGETHER, np.float32)
    for s in range(size):
        if s + ahead < size:
            _ask(k, _row(slots[s + ahead], at))
        if weights[s] == _EMPTY:
            logits[:, s] = _EMPTY
        elif not 0 <= slots[s] < at[4]:
            return False
        else:
            waiting[num], rows[num] = s, _row(slots[s], at)
            num += 1
        if num == 0 or (num < _TOGETHER and s + 1 < size):
            continue
        if num < _TOGETHER:
            rows[num:] = rows[0]
        for i in range(heads):
            dot_four(q, i * dim, k, rows, whole, found)
            for n in range(num):
                for j in range(whole, dim):
                    found[n] += q[i, j] * number(k[rows[n], j])
                logits[i, waiting[n]] = _logit(found[n], formula) + weights[waiting[n]]
        num = 0
    return True


@inner
def _logit(dot: Any, formula: Any) -> Any:
    scaled = dot * formula[0]
    return formula[1] * np.float32(math.tanh(scaled / formula[1])) if formula[1] > 0 else scaled


@inner_sums
def _softmax(logits: Any, sink: Any, powers: Any) -> None:
    """In place, with one more logit that has no value; all -inf: 0."""
    top = sink
    for s in range(logits.shape[0]):
        top = max(top, logits[s])
    if top == _EMPTY:
        top = np.float32(0)
    _exp(logits, top, powers)
    total = np.float32(math.exp(sink - top))
    for s in range(logits.shape[0]):
        total += logits[s]
    share = np.float32(1) / total if total > 0 else np.float32(1)
    for s in range(logits.shape[0]):
        logits[s] *= share


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


@inner
def _repeat(waiting: Any, rows: Any, part: Any, num: Any) -> None:
    """The last few again until they are four, each in equal parts, which is exact: 0 times infinity would be NaN."""
    for n in range(num, _TOGETHER):
        waiting[n], rows[n] = waiting[n - num], rows[n - num]
    for n in range(_TOGETHER):
        part[n] = np.float32(1) / np.float32((_TOGETHER - 1 - n % num) // num + 1)


@inner_sums
def _sums(shares: Any, v: Any, at: Any, ahead: Any, slots: Any, weights: Any, out: Any) -> None:
    """Sums fp32 [n, dv] of the values, each times its share [n, s]."""
    size, (heads, wide) = slots.shape[0], out.shape
    whole, num = wide - wide % WIDE, 0
    waiting, rows = np.empty(_TOGETHER, np.int64), np.empty(_TOGETHER, np.int64)
    by, part = np.empty(_TOGETHER, np.float32), np.ones(_TOGETHER, np.float32)
    out[:] = 0
    for s in range(size):
        if s + ahead < size:
            _ask(v, _row(slots[s + ahead], at))
        if weights[s] != _EMPTY:
            waiting[num], rows[num] = s, _row(slots[s], at)
            num += 1
        if num == 0 or (num < _TOGETHER and s + 1 < size):
            continue
        if num < _TOGETHER:
            _repeat(waiting, rows, part, num)
        for i in range(heads):
            for n in range(_TOGETHER):
                by[n] = shares[i, waiting[n]] * part[n]
            add_scaled_four(out, i * wide, v, rows, whole, by)
            for n in range(_TOGETHER if whole < wide else 0):
                for j in range(whole, wide):
                    out[i, j] += by[n] * number(v[rows[n], j])
        num = 0


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
