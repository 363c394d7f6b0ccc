"""Keys or values as rows of memory, which are read where they are."""

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from sahub.attention.rows import at_once, free_to_read
from sahub.attention.shared import Keys, SharedPrefix

_NEVER = (1 << 63) - 1
_CACHED_ELEMENTS = 250_000  # 1 MB in fp32, what a core's cache holds


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
        self._length = x.shape[2] if self._shared is None else self._shared.shape[2]
        batch, head, key, one = x.stride()
        if width == 0 or one != 1 or batch % width or head % width or key % width:
            x = x.contiguous()
            batch, head, key, _ = x.stride()
        unit = max(width, 1)
        self._batch_step, self._head_step, self._key_step = batch // unit, head // unit, key // unit
        last = (x.shape[0] - 1) * batch + (x.shape[1] - 1) * head + (x.shape[2] - 1) * key
        self._rows = x.as_strided((last // unit + 1, width), (width, 1))
        self._groups = x.shape[1]
        self.sums_in_place = x.dtype == torch.float32 and free_to_read(x)

    def as_numpy(self) -> tuple[np.ndarray, np.ndarray]:
        """The rows as numpy has them (bf16: its bits as int16), and where a key lies among them: int64 [7].

        batch step, head step, key step, KV heads, shared, jump, keys: that of a KV head is the row
        b * batch step + head * head step + key * key step, and from key `shared` on b * jump more.
        """
        shared = self._shared
        behind = (_NEVER, 0) if shared is None else (shared.length, shared.room * self._key_step)
        batch_step = self._batch_step if shared is None else 0
        rows = self._rows.view(torch.int16) if self._rows.dtype == torch.bfloat16 else self._rows
        numbers = [batch_step, self._head_step, self._key_step, self._groups, *behind, self._length]
        return rows.numpy(), np.array(numbers, np.int64)

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
