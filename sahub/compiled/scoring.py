"""Scores of keys that are written as codes: what is kept of them is read, and nothing is unpacked.

Memory may hold more keys than are scored: how many are, `out` says.
"""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import PLAIN, Function, compiled, inner, ones
from sahub.compiled.present import LANES
from sahub.compiled.vectors import add_four, multiply_four

_KEYS, _BLOCK = 8192, 1024  # keys, or bytes of bits, that a core's cache holds beside what is summed up of them


def _look_up(first: Any, end: Any, high: Any, low: Any, codes: Any, out: Any) -> None:
    _, groups, num, size, rows = high.shape
    size *= low.shape[3]
    one, other = np.zeros((size, LANES), np.float32), np.zeros((size, LANES), np.float32)
    sums = np.empty((min(_KEYS, out.shape[3]), LANES), np.float32)
    for unit in range(first, end):
        b, g = unit // groups, unit % groups
        for start in range(0, out.shape[3], _KEYS):
            part = codes[b, g, :, start : min(start + _KEYS, out.shape[3])]
            for begin in range(0, rows, LANES):
                row = min(begin, rows - LANES)
                sums[:] = 0
                for t in range(0, num, 2):
                    _fill(high[b, g, t], low[b, g, t], row, one)
                    if t + 1 < num:
                        _fill(high[b, g, t + 1], low[b, g, t + 1], row, other)
                    else:
                        other[:] = 0
                    _add(one, part[t], other, part[min(t + 1, num - 1)], sums)
                for lane in range(LANES):
                    _copy(sums, lane, out[b, g, row + lane, start : start + _KEYS])


@inner
def _fill(high: Any, low: Any, row: Any, table: Any) -> None:
    """What every code is worth to the rows from `row` on."""
    num, rows = low.shape
    for i in range(high.shape[0]):
        for j in range(num):
            multiply_four(table, LANES * (i * num + j), high, i * rows + row, low, j * rows + row)


@inner
def _add(one: Any, first: Any, other: Any, second: Any, sums: Any) -> None:
    for k in range(first.shape[0]):
        add_four(sums, LANES * k, one, LANES * np.intp(first[k]), other, LANES * np.intp(second[k]))


@inner
def _copy(sums: Any, lane: Any, out: Any) -> None:
    for k in range(out.shape[0]):
        out[k] = sums[k, lane]


@cache
def looking_up() -> Function:
    """The loop.

        look_up(first, end, high, low, codes, out)

    first, end  which units, flat over (b, g)
    high        fp32 [b, g, t, c, r], for 4 rows or more: code i of a table is worth high[i // n] * low[i % n]
    low         fp32 [b, g, t, n, r]
    codes       uint16 [b, g, t, k or more], below c * n
    out         fp32 [b, g, r, k], written: sums over the tables, in their order
    """
    five = "float32[:,:,:,:,::1]"
    return compiled(_look_up, f"void(int64,int64,{five},{five},uint16[:,:,:,::1],float32[:,:,:,::1])", **PLAIN)


def _agree(first: Any, end: Any, words: Any, asked: Any, num: Any, out: Any) -> None:
    _, groups, lists, size, _ = words.shape
    for unit in range(first, end):
        b, g = unit // groups, unit % groups
        for r in range(out.shape[2]):
            held = words[b, g, r if lists > 1 else 0]
            for q in range(out.shape[3]):
                scores = out[b, g, r, q]
                scores[:] = num
                for w in range(size):
                    _subtract(held[w], asked[b, g, r, q, w], scores)


@inner
def _subtract(held: Any, asked: Any, scores: Any) -> None:
    """2 for each bit that differs."""
    for k in range(scores.shape[0]):
        scores[k] -= np.float32(2) * np.float32(np.int32(ones(held[k] ^ asked)))


@cache
def agreeing() -> Function:
    """The loop.

        agree(first, end, words, asked, num, out)

    first, end  which units, flat over (b, g)
    words       uint32 [b, g, r or 1, w, k or more]: the bits of each key, 32 a word
    asked       uint32 [b, g, r, q, w]: those of each query
    num         how many bits there are, without those that fill the last word
    out         fp32 [b, g, r, q, k], written: bits that agree minus bits that differ
    """
    five = "uint32[:,:,:,:,::1]"
    return compiled(_agree, f"void(int64,int64,{five},{five},int64,float32[:,:,:,:,::1])", **PLAIN)


def _meet(first: Any, last: Any, planes: Any, asked: Any, least: Any, out: Any) -> None:
    _, groups, tables, _, _ = planes.shape
    words, size = out.shape[3], min(_BLOCK, out.shape[3])
    other, counts = np.empty(size, np.uint8), np.empty((least, size), np.uint8)
    for unit in range(first, last):
        b, g = unit // groups, unit % groups
        for start in range(0, words, _BLOCK):
            end = min(start + _BLOCK, words)
            for r in range(asked.shape[2]):
                counts[:] = 0
                for t in range(tables):
                    _differ(planes[b, g, t, :, start:end], asked[b, g, r, t], other)
                    _count(counts, other)
                out[b, g, r, start:end] = counts[least - 1, : end - start]


@inner
def _differ(planes: Any, asked: Any, other: Any) -> None:
    """In which keys some bit is another one."""
    other[:] = 0
    for bit in range(planes.shape[0]):
        plane, one = planes[bit], asked[bit]
        for w in range(plane.shape[0]):
            other[w] |= plane[w] ^ one


@inner
def _count(counts: Any, other: Any) -> None:
    """One more for the keys in which none is."""
    for i in range(counts.shape[0] - 1, 0, -1):
        for w in range(other.shape[0]):
            counts[i, w] |= counts[i - 1, w] & ~other[w]
    for w in range(other.shape[0]):
        counts[0, w] |= ~other[w]


@cache
def meeting() -> Function:
    """The loop.

        meet(first, end, planes, asked, least, out)

    first, end  which units, flat over (b, g)
    planes      uint8 [b, g, t, n, w or more]: n bits of each key in each of t tables, eight keys a byte
    asked       uint8 [b, g, r, t, n]: those of each row, 255 or 0
    out         uint8 [b, g, r, w], written: the keys that have all bits of a row in `least` tables or more
    """
    five = "uint8[:,:,:,:,::1]"
    return compiled(_meet, f"void(int64,int64,{five},{five},int64,uint8[:,:,:,::1])", **PLAIN)
