"""Attention over chosen keys, read where they lie: a pass over the keys, one over the values."""

import math
from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import SUMS, Function, compiled, inner, prefetch

_AHEAD = 8  # keys that are asked of memory before they are needed
_LINE = 64  # bytes


@inner
def _place(numbers: Any, b: Any, u: Any, units: Any) -> Any:
    """Where the keys of unit u of sequence b lie: first row, step, and from key `shared` on `jump` rows further."""
    batch_step, head_step, key_step, groups, shared, jump = numbers
    return b * batch_step + u * groups // units * head_step, key_step, shared, b * jump


def _attend(
    q: Any, k: Any, v: Any, k_place: Any, v_place: Any, slots: Any, weights: Any, formula: Any, sinks: Any, out: Any
) -> None:
    bits = k.itemsize == 2
    batch, units, rows, heads, dim = q.shape
    wide, size, empty = v.shape[1], slots.shape[3], np.float32(-np.inf)
    every = _LINE // k.itemsize
    flat_k, flat_v = k.reshape(-1), v.reshape(-1)
    logits, top = np.empty((heads, size), np.float32), np.empty(heads, np.float32)
    words = np.empty(max(dim, wide), np.uint32)
    floats = words.view(np.float32)
    for b in range(batch):
        for u in range(units):
            first, step, shared, jump = _place(k_place, b, u, units)
            v_first, v_step, v_shared, v_jump = _place(v_place, b, u, units)
            for r in range(rows):
                top[:] = empty
                for s in range(size):
                    if s + _AHEAD < size:
                        slot = slots[b, u, r, s + _AHEAD]
                        place = (first + slot * step + (jump if slot >= shared else 0)) * dim
                        for j in range(0, dim, every):
                            prefetch(flat_k, place + j)
                    weight = weights[b, u, r, s]
                    if weight == empty:
                        logits[:, s] = empty
                        continue
                    slot = slots[b, u, r, s]
                    key = k[first + slot * step + (jump if slot >= shared else 0)]
                    if bits:
                        for j in range(dim):
                            words[j] = np.uint32(key[j]) << np.uint32(16)
                    for i in range(heads):
                        total = np.float32(0)
                        if bits:
                            for j in range(dim):
                                total += q[b, u, r, i, j] * floats[j]
                        else:
                            for j in range(dim):
                                total += q[b, u, r, i, j] * key[j]
                        total *= formula[0]
                        if formula[1] > 0:
                            total = formula[1] * np.float32(math.tanh(total / formula[1]))
                        total += weight
                        logits[i, s] = total
                        if total > top[i] or total != total:
                            top[i] = total
                for i in range(heads):
                    most = top[i]
                    if sinks.shape[0]:
                        most = max(most, sinks[u * heads + i])
                    if most == empty:
                        most = np.float32(0)
                    total = np.float32(0)
                    for s in range(size):
                        share = np.float32(math.exp(logits[i, s] - most))
                        logits[i, s] = share
                        total += share
                    if sinks.shape[0]:
                        total += np.float32(math.exp(sinks[u * heads + i] - most))
                    if total == 0:
                        total = np.float32(1)
                    for s in range(size):
                        logits[i, s] /= total
                    out[b, u, r, i, :] = 0
                for s in range(size):
                    if s + _AHEAD < size:
                        slot = slots[b, u, r, s + _AHEAD]
                        place = (v_first + slot * v_step + (v_jump if slot >= v_shared else 0)) * wide
                        for j in range(0, wide, every):
                            prefetch(flat_v, place + j)
                    if weights[b, u, r, s] == empty:
                        continue
                    slot = slots[b, u, r, s]
                    value = v[v_first + slot * v_step + (v_jump if slot >= v_shared else 0)]
                    if bits:
                        for j in range(wide):
                            words[j] = np.uint32(value[j]) << np.uint32(16)
                    for i in range(heads):
                        share = logits[i, s]
                        if bits:
                            for j in range(wide):
                                out[b, u, r, i, j] += share * floats[j]
                        else:
                            for j in range(wide):
                                out[b, u, r, i, j] += share * value[j]


@cache
def attending(kind: str) -> Function:
    """The loop for keys and values of a numpy dtype: float32, or int16, which are the bits of bfloat16.

        attend(q, k, v, k_place, v_place, slots, weights, formula, sinks, out)

    q        fp32 [b, u, q, n, d]: n query heads that chose together, u such units a sequence
    k, v     [rows, d], [rows, dv]: memory
    k_place  int64 [6]: where a key of a KV head lies in memory, see sahub.attention.table; v_place of v
    slots    int64 [b, u, q, s], weights fp32, the same: log-weights, -inf = empty slot
    formula  fp32 [2]: scale; bound of the logits, 0 = none
    sinks    fp32 [u * n], a logit of each head; or [0]
    out      fp32 [b, u, q, n, dv], written
    """
    memory, places = f"{kind}[:,::1]", "int64[::1]"
    arrays = f"float32[:,:,:,:,::1],{memory},{memory},{places},{places},int64[:,:,:,:],float32[:,:,:,:]"
    signature = f"void({arrays},float32[::1],float32[::1],float32[:,:,:,:,::1])"
    return compiled(_attend, signature, **SUMS)
