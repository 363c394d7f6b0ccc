"""Reading the chosen keys and values alone, and taking the rows of a call a few at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sahub.attention.call import Call, Picks
from sahub.attention.rows import Rows, at_once
from sahub.attention.selection import Selection, spread
from sahub.attention.table import Table

_CHUNK_ELEMENTS = 4_000_000  # of the largest temporary: 16 MB in fp32


def row_chunks(rows: int, elements_per_row: int, device: torch.device) -> Iterator[slice]:
    """Slices of `rows` rows, as many in each as keep a temporary small."""
    size = max(1, at_once(device, _CHUNK_ELEMENTS) // max(1, elements_per_row))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def dots_at(call: Call, slots: Tensor) -> Tensor:
    """q.k of the keys at `slots` [b, u, q, s], without the scale: fp32 [b, h, q, s]."""
    slots = spread(slots, max(call.num_kv_heads, slots.shape[1])).expand(call.rows.batch, -1, call.rows.num_rows, -1)
    queries = call.q.float().unflatten(1, (slots.shape[1], -1)).transpose(2, 3)  # [b, u, q, heads of the unit, d]
    table = Table(call.k)
    heads: Tensor = table.dots(queries, table.places(slots)).transpose(2, 3).flatten(1, 2)
    return heads


def values_at(call: Call, slots: Tensor) -> Tensor:
    """The values at `slots` [b, u, q, s]: fp32 [b, h, q, s, dv]."""
    slots = spread(slots, max(call.num_kv_heads, slots.shape[1])).expand(call.rows.batch, -1, call.rows.num_rows, -1)
    table = Table(call.v)
    return spread(table.at(table.places(slots)), call.num_heads)


def by_rows(call: Call, taken: Selection, elements_per_row: int, pick: Callable[[Call, Selection], Picks]) -> Selection:
    """What `pick` chooses for a few rows at a time: for choices that do not depend on the other rows of a call."""
    chunks = row_chunks(call.rows.num_rows, elements_per_row, call.rows.device)
    parts = [pick(*_part(call, taken, part)) for part in chunks]
    if len(parts) == 1:
        return taken.beside(*parts[0])
    width = max(part.units.shape[-1] for part in parts)
    units, weights = (
        torch.cat([torch.nn.functional.pad(part[i], (0, width - part[i].shape[-1]), value=fill) for part in parts], 2)
        for i, fill in enumerate((0, float("-inf")))
    )
    return taken.beside(units, weights)


def _part(call: Call, taken: Selection, part: slice) -> tuple[Call, Selection]:
    """Some rows of a call as a call of their own, whose last key is the last row's own."""
    if part == slice(call.rows.num_rows):
        return call, taken
    end = call.rows.num_keys - call.rows.num_rows + part.stop
    mask = call.rows.mask
    if mask is not None:
        mask = mask[:, :end] if mask.dim() == 2 else mask[:, :, part, :end]
    rows = Rows(call.rows.batch, part.stop - part.start, end, call.rows.device, mask)
    few = replace(
        call,
        q=call.q[:, :, part],
        k=call.k[:, :, :end],
        v=call.v[:, :, :end],
        rows=rows,
        valid=None if call.valid is None else call.valid[:, :end],
    )
    slots = taken.slots[:, :, part].clamp(max=end - 1)  # empty ones may lie anywhere
    return few, replace(taken, rows=rows, slots=slots, weights=taken.weights[:, :, part])
