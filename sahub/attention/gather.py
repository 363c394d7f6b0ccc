"""Reading the chosen keys and values alone, and taking the rows of a call a few at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import torch
from torch import Tensor

from sahub.attention.call import Call, Picks
from sahub.attention.rows import Rows, free_to_read
from sahub.attention.selection import Selection

_CHUNK_ELEMENTS = 4_000_000  # of the largest temporary: 16 MB in fp32
_CACHED_ELEMENTS = 250_000  # 1 MB in fp32, what a core's cache holds


def row_chunks(rows: int, elements_per_row: int) -> Iterator[slice]:
    """Slices of `rows` rows, as many in each as keep a temporary small."""
    size = max(1, _CHUNK_ELEMENTS // max(1, elements_per_row))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def blocks(units: int, rows: int, elements: int) -> Iterator[tuple[slice, slice]]:
    """Units and rows of a call, as many at a time as keep what is gathered in a core's cache.

    elements  of what is gathered for one unit and row
    """
    size = max(1, _CACHED_ELEMENTS // max(1, elements * rows))
    for start in range(0, units, size):
        block = slice(start, min(start + size, units))
        yield from ((block, part) for part in row_chunks(rows, elements * (block.stop - block.start)))


def rows_at(x: Tensor, head: Tensor, slots: Tensor) -> Tensor:
    """x[b, head[u], slots] as fp32 [b, u, q, s, d] from x [b, g, k, d]; a view into a larger buffer is not copied."""
    found = _table(x, head, slots)
    if found is None:
        start = torch.arange(x.shape[0], device=x.device)[:, None, None, None]
        return x[start, head[:, None, None], slots].float()
    table, flat = found
    return table.index_select(0, flat.reshape(-1)).view(*flat.shape, x.shape[-1]).float()


def sums_at(x: Tensor, head: Tensor, slots: Tensor, shares: Tensor) -> Tensor:
    """shares fp32 [b, u, q, n, s] times x[b, head[u], slots] of x [b, g, k, d]: fp32 [b, u, q, n, d]."""
    found = _table(x, head, slots) if x.dtype == torch.float32 and free_to_read(x) and shares.shape[3] == 1 else None
    if found is None or not slots.numel():
        return shares @ rows_at(x, head, slots)
    table, flat = found  # torch's sum over rows of a table reads them where they are
    bags = flat.flatten(0, 2), shares.flatten(0, 3)
    sums = torch.nn.functional.embedding_bag(bags[0], table, per_sample_weights=bags[1], mode="sum")
    return sums.view(*shares.shape[:4], -1)


def _table(x: Tensor, head: Tensor, slots: Tensor) -> tuple[Tensor, Tensor] | None:
    """The memory of x as rows [n, d], and which of them x[b, head[u], slots] are; None where it has no such form."""
    width = x.shape[-1]
    batch_step, head_step, key_step, inner = x.stride()
    if width == 0 or inner != 1 or any(step % width for step in (batch_step, head_step, key_step)):
        return None
    last = sum((size - 1) * step for size, step in zip(x.shape[:3], (batch_step, head_step, key_step), strict=True))
    table = x.as_strided((last // width + 1, width), (width, 1))
    start = torch.arange(x.shape[0], device=x.device)[:, None]
    origin = (start * batch_step + head * head_step) // width
    return table, origin[:, :, None, None] + slots * (key_step // width)


def dots_at(call: Call, slots: Tensor) -> Tensor:
    """q.k of the keys at `slots` [b, u, q, s], without the scale: fp32 [b, h, q, s]."""
    units = max(call.num_kv_heads, slots.shape[1])
    queries = call.q.float().unflatten(1, (units, -1)).transpose(2, 3)  # [b, u, q, heads of the unit, d]
    dots = queries @ rows_at(call.k, *_units(call, slots, units)).transpose(-1, -2)
    heads: Tensor = dots.transpose(2, 3).flatten(1, 2)
    return heads


def values_at(call: Call, slots: Tensor) -> Tensor:
    """The values at `slots` [b, u, q, s]: fp32 [b, h, q, s, dv]."""
    units = max(call.num_kv_heads, slots.shape[1])
    return rows_at(call.v, *_units(call, slots, units)).repeat_interleave(call.num_heads // units, dim=1)


def _units(call: Call, slots: Tensor, units: int) -> tuple[Tensor, Tensor]:
    heads = torch.arange(units, device=slots.device) * call.num_kv_heads // units
    return heads, slots.expand(call.rows.batch, units, call.rows.num_rows, -1)


def by_rows(call: Call, taken: Selection, elements_per_row: int, pick: Callable[[Call, Selection], Picks]) -> Selection:
    """What `pick` chooses for a few rows at a time: for choices that do not depend on the other rows of a call."""
    parts = [pick(*_part(call, taken, part)) for part in row_chunks(call.rows.num_rows, elements_per_row)]
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
    return few, replace(taken, rows=rows, slots=taken.slots[:, :, part], weights=taken.weights[:, :, part])
