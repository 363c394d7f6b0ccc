"""Scores of keys that are written as codes: what is kept of them is read, and nothing is unpacked.

Memory may hold more keys than are scored: how many are, `out` says.
"""

from functools import cache
from typing import Any

import numpy as np

from sahub.compiled.jit import PLAIN, Function, compiled, inner, ones

_KEYS, _BLOCK = 4096, 1024  # keys, or bytes of bits, that a core's cache holds beside what is summed up of them


def _look_up(tables: Any, codes: Any, out: Any) -> None:
    batch, groups, num, rows, _ = tables.shape
    for b in range(batch):
        for g in range(groups):
            for start in range(0, out.shape[3], _KEYS):
                part = codes[b, g, :, start : start + _KEYS]
                for r in range(rows):
                    sums = out[b, g, r, start : start + _KEYS]
                    sums[:] = 0
                    for t in range(0, num - 1, 2):
                        _add_two(tables[b, g, t, r], part[t], tables[b, g, t + 1, r], part[t + 1], sums)
                    if num % 2:
                        _add(tables[b, g, num - 1, r], part[num - 1], sums)


@inner
def _add(table: Any, codes: Any, sums: Any) -> None:
    for k in range(sums.shape[0]):
        sums[k] += table[codes[k]]


@inner
def _add_two(one: Any, first: Any, other: Any, second: Any, sums: Any) -> None:
    for k in range(sums.shape[0]):
        sums[k] = (sums[k] + one[first[k]]) + other[second[k]]


@cache
def looking_up() -> Function:
    """The loop.

        look_up(tables, codes, out)

    tables  fp32 [b, g, t, r, c]: what each of c codes of table t is worth to a row
    codes   uint16 [b, g, t, k or more], below c
    out     fp32 [b, g, r, k], written: sums over the tables, in their order
    """
    return compiled(_look_up, "void(float32[:,:,:,:,::1],uint16[:,:,:,::1],float32[:,:,:,::1])", **PLAIN)


def _agree(words: Any, asked: Any, num: Any, out: Any) -> None:
    batch, groups, lists, size, _ = words.shape
    for b in range(batch):
        for g in range(groups):
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

        agree(words, asked, num, out)

    words  uint32 [b, g, r or 1, w, k or more]: the bits of each key, 32 a word
    asked  uint32 [b, g, r, q, w]: those of each query
    num    how many bits there are, without those that fill the last word
    out    fp32 [b, g, r, q, k], written: bits that agree minus bits that differ
    """
    five = "uint32[:,:,:,:,::1]"
    return compiled(_agree, f"void({five},{five},int64,float32[:,:,:,:,::1])", **PLAIN)


def _meet(planes: Any, asked: Any, least: Any, out: Any) -> None:
    batch, groups, tables, _, _ = planes.shape
    words, size = out.shape[3], min(_BLOCK, out.shape[3])
    other, counts = np.empty(size, np.uint8), np.empty((least, size), np.uint8)
    for b in range(batch):
        for g in range(groups):
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

        meet(planes, asked, least, out)

    planes  uint8 [b, g, t, n, w or more]: n bits of each key in each of t tables, eight keys a byte
    asked   uint8 [b, g, r, t, n]: those of each row, 255 or 0
    out     uint8 [b, g, r, w], written: the keys that have all bits of a row in `least` tables or more
    """
    five = "uint8[:,:,:,:,::1]"
    return compiled(_meet, f"void({five},{five},int64,uint8[:,:,:,::1])", **PLAIN)
