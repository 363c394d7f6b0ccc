"""Reading the chosen keys and values alone, and taking the rows of a call a few at a time."""

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from sahub.attention.call import Call, Picks
from sahub.attention.rows import Rows, at_once, free_to_read
from sahub.attention.selection import Selection, spread
from sahub.attention.shared import Keys, SharedPrefix

_CHUNK_ELEMENTS = 4_000_000  # of the largest temporary: 16 MB in fp32
_CACHED_ELEMENTS = 250_000  # 1 MB in fp32, what a core's cache holds


def row_chunks(rows: int, elements_per_row: int, device: torch.device) -> Iterator[slice]:
    """Slices of `rows` rows, as many in each as keep a temporary small."""
    size = max(1, at_once(device, _CHUNK_ELEMENTS) // max(1, elements_per_row))
    return (slice(start, min(start + size, rows)) for start in range(0, rows, size))


def cached(units: int, elements: int, device: torch.device) -> Iterator[slice]:
    """Slices of `units` blocks, as many in each as leave what is gathered of them in a core's cache."""
    size = max(1, at_once(device, _CACHED_ELEMENTS) // max(1, elements))
    return (slice(start, min(start + size, units)) for start in range(0, units, size))


class Table:
    """x [b, g, k, d] as rows of its memory, which are read where they are, also of a view into a larger buffer."""

    def __init__(self, x: Keys) -> None:
        self._shared = x if isinstance(x, SharedPrefix) else None
        x = x.memory if isinstance(x, SharedPrefix) else x
        width = x.shape[-1]
        if width == 0 or x.stride(-1) != 1 or any(step % width for step in x.stride()[:3]):
            x = x.contiguous()
        self._batch_step, self._head_step, self._key_step = (step // max(width, 1) for step in x.stride()[:3])
        last = sum((size - 1) * step for size, step in zip(x.shape[:3], x.stride()[:3], strict=True))
        self._rows = x.as_strided((last // max(width, 1) + 1, width), (width, 1))
        self._groups = x.shape[1]
        self.sums_in_place = x.dtype == torch.float32 and free_to_read(x)

    def at_hand(self, batch: int, units: int) -> tuple[np.ndarray, np.ndarray]:
        """The rows as numpy has them (bf16: its bits as int16), and where a slot of each unit lies among them.

        int64 [batch, units, 4]: first, step, shared, jump: slot s is row first + s * step, from slot `shared` on `jump`
        further.
        """
        head = np.arange(units, dtype=np.int64) * self._groups // units * self._head_step
        place = np.zeros((batch, units, 4), np.int64)
        place[..., 1], place[..., 2] = self._key_step, np.iinfo(np.int64).max
        number = np.arange(batch, dtype=np.int64)[:, None]
        if self._shared is None:
            place[..., 0] = head + number * self._batch_step
        else:
            place[..., 0], place[..., 2] = head, self._shared.length
            place[..., 3] = number * self._shared.room * self._key_step
        rows = self._rows.view(torch.int16) if self._rows.dtype == torch.bfloat16 else self._rows
        return rows.numpy(), place

    def places(self, slots: Tensor) -> Tensor:
        """The rows that hold the keys at `slots` [b, u, q, s] of unit u's KV head: int64 [b, u, q, s]."""
        head = torch.arange(slots.shape[1], device=slots.device) * self._groups // slots.shape[1]
        batch = torch.arange(slots.shape[0], device=slots.device)[:, None]
        if self._shared is not None:  # one sequence in memory, tails behind its prefix
            slots = slots + (slots >= self._shared.length) * (batch * self._shared.room)[:, :, None, None]
            batch = torch.zeros_like(batch)
        steps = slots if self._key_step == 1 else slots * self._key_step
        return steps + (batch * self._batch_step + head * self._head_step)[:, :, None, None]

    def at(self, places: Tensor) -> Tensor:
        """The rows at `places` [...]: fp32 [..., d]."""
        found = self._rows.index_select(0, places.reshape(-1)).float()
        return found.view(*places.shape, found.shape[-1])

    def sums(self, places: Tensor, shares: Tensor) -> Tensor:
        """Sums of the rows at `places` [b, u, q, s], each times its share, fp32 [b, u, q, n, s]: [b, u, q, n, d]."""
        if self.sums_in_place and shares.shape[3] == 1 and places.numel():
            bags, weights = places.flatten(0, 2), shares.flatten(0, 3)
            found = torch.nn.functional.embedding_bag(bags, self._rows, per_sample_weights=weights, mode="sum")
            return found.view(*shares.shape[:4], -1)
        elements = places.shape[0] * places.shape[2] * places.shape[3] * self._rows.shape[1]
        parts = cached(places.shape[1], elements, places.device)
        return torch.cat([shares[:, part] @ self.at(places[:, part]) for part in parts], dim=1)

    def dots(self, queries: Tensor, places: Tensor) -> Tensor:
        """Products of queries fp32 [b, u, q, n, d] with the rows at `places` [b, u, q, s]: fp32 [b, u, q, n, s]."""
        elements = places.shape[0] * places.shape[2] * places.shape[3] * self._rows.shape[1]
        parts = cached(places.shape[1], elements, places.device)
        return torch.cat([queries[:, part] @ self.at(places[:, part]).mT for part in parts], dim=1)


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
    return few, replace(taken, rows=rows, slots=taken.slots[:, :, part], weights=taken.weights[:, :, part])
