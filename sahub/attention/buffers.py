"""A tensor that grows along one axis by amortised doubling, and is shared between forks until one of them writes."""

from typing import Self

import torch
from torch import Tensor


class Growing:
    """[b, n, ...] or [b, g, n, ...] with n growing: `data` is a view of the slots in use.

    fill  what slots hold before anything is written to them
    """

    def __init__(self, axis: int, fill: float = 0.0) -> None:
        self._axis = axis
        self._fill = fill
        self._store: Tensor | None = None
        self._shared = False
        self.length = 0

    @property
    def data(self) -> Tensor:
        """The slots in use; read only."""
        assert self._store is not None
        return self._store.narrow(self._axis, 0, self.length)

    @property
    def memory(self) -> Tensor:
        """All slots, also those that are not in use, side by side in memory; read only."""
        assert self._store is not None
        return self._store

    def grow(self, length: int, like: Tensor) -> Tensor:
        """Use `length` slots (not fewer than now) and return them for writing; `like` gives the first shape."""
        store = self._store
        if store is None or store.shape[self._axis] < length:
            shape = list(like.shape if store is None else store.shape)
            shape[self._axis] = max(length, 2 * shape[self._axis], 16) if store is not None else max(length, 16)
            wider = torch.full(shape, self._fill, dtype=like.dtype, device=like.device)
            if store is not None:
                wider.narrow(self._axis, 0, self.length).copy_(self.data)
            self._store, self._shared = wider, False
        elif self._shared:
            self._store, self._shared = store.clone(), False
        self.length = length
        return self.data

    def append(self, more: Tensor) -> None:
        """Put `more` after the slots in use."""
        start = self.length
        self.grow(start + more.shape[self._axis], more).narrow(self._axis, start, more.shape[self._axis]).copy_(more)

    def truncate(self, length: int) -> None:
        """Forget the slots from `length` on; they hold `fill` when they come back."""
        if self._store is not None and length < self.length:
            if self._shared:
                self._store, self._shared = self._store.clone(), False
            self._store.narrow(self._axis, length, self.length - length).fill_(self._fill)
        self.length = min(self.length, length)

    def take(self, rows: Tensor) -> Self:
        """A copy of some sequences, int64 [n], also of one more than once."""
        twin = type(self)(self._axis, self._fill)
        twin.length, twin._store = self.length, None if self._store is None else self._store.index_select(0, rows)
        return twin

    def fork(self) -> Self:
        """The same content; whoever writes first copies."""
        twin = type(self)(self._axis, self._fill)
        twin._store, twin.length = self._store, self.length
        twin._shared = self._shared = self._store is not None
        return twin
