"""Memory for what grows with a text: tensors in pages of their own, and one that grows along an axis."""

import math
import mmap
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

import torch
from torch import Tensor

_MAPPED = 1 << 18  # bytes of a tensor from which it is mapped
_COPIED = 1 << 22  # bytes below which a copy that passes is made in memory that was in use: ten times as fast


def apart(shape: Sequence[int], like: Tensor) -> Tensor:
    """Zeros of this shape, with dtype and device of another; a large one on a CPU in memory of its own.

    So it leaves no holes between what passes and goes; and where the system has larger pages, it lies in them: reading
    rows here and there then costs half. Small ones are not mapped, since a process may have tens of thousands of
    mappings only. Raises as torch does where memory is out.
    """
    size = math.prod(shape) * like.itemsize
    if like.device.type == "cpu" and size >= _MAPPED and hasattr(mmap, "MAP_ANONYMOUS"):
        with suppress(OSError):
            memory = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
            with suppress(AttributeError, OSError):  # of systems without such pages
                memory.madvise(mmap.MADV_HUGEPAGE)
            return torch.frombuffer(memory, dtype=like.dtype).view(shape)
    return like.new_zeros(shape)


class Growing:
    """[b, n, ...] or [b, g, n, ...] with n growing by a quarter: `data` is a view of the slots in use.

    Forks share it until one of them writes.

    fill  what slots hold before anything is written to them
    """

    def __init__(self, axis: int, fill: float = 0.0) -> None:
        self._axis = axis
        self._fill = fill
        self._store: Tensor | None = None
        self._shared = False
        self._reserved = 0
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
            room = 0 if store is None else shape[self._axis] * 5 // 4
            shape[self._axis] = max(length, self._reserved, room, 16)
            wider = self._new(shape, like)
            if store is not None:
                wider.narrow(self._axis, 0, self.length).copy_(self.data)
            self._store, self._shared = wider, False
        elif self._shared:
            self._own()
        self.length = length
        return self.data

    def reserve(self, num: int) -> None:
        """So many more slots will be used: have room for all of them once one does not fit."""
        self._reserved = self.length + num

    def append(self, more: Tensor) -> None:
        """Put `more` after the slots in use."""
        start = self.length
        self.grow(start + more.shape[self._axis], more).narrow(self._axis, start, more.shape[self._axis]).copy_(more)

    def truncate(self, length: int) -> None:
        """Forget the slots from `length` on; they hold `fill` when they come back."""
        if self._store is not None and length < self.length:
            if self._shared:
                self._own()
            self._store.narrow(self._axis, length, self.length - length).fill_(self._fill)
        self.length, self._reserved = min(self.length, length), 0

    def _new(self, shape: Sequence[int], like: Tensor) -> Tensor:
        made = apart(shape, like)
        return made.fill_(self._fill) if self._fill else made

    def _own(self) -> None:
        """Write to a copy from here on."""
        store = self._store
        assert store is not None
        copied = store.nbytes < _COPIED
        self._store, self._shared = store.clone() if copied else apart(store.shape, store).copy_(store), False

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
