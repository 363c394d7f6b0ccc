"""Contexts that are held within a number of bytes: the least recently used go elsewhere, or can be made again."""

import ctypes
import errno
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryFile

import torch
from torch import Tensor

from sahub.engine.contexts.cache import BufferLayer
from sahub.engine.contexts.prefix import Prefix

log = logging.getLogger(__name__)
AWAY_BYTES = 32 << 30  # of what is kept elsewhere


class Elsewhere:
    """A prefix whose keys and values are in host memory, or in a file without a name, which ends with its process."""

    def __init__(self, prefix: Prefix, folder: Path | None) -> None:
        prefix.drop_state()
        self._prefix, self._buffers = prefix, [one for one in prefix.cache.layers if isinstance(one, BufferLayer)]
        own = [(layer.keys[:, :, : prefix.length], layer.values[:, :, : prefix.length]) for layer in self._buffers]
        self._shapes = [[(one.shape, one.dtype, one.device) for one in pair] for pair in own]
        self.nbytes = sum(one.nbytes for pair in own for one in pair)
        self._tensors, self._file = [], None
        if folder is None:
            self._tensors = [[one.to("cpu", copy=True) for one in pair] for pair in own]
        else:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = TemporaryFile(dir=folder)  # noqa: SIM115  (closed when nobody needs it)
            weakref.finalize(self, self._file.close)
            for one in (one for pair in own for one in pair):
                self._file.write(one.contiguous().cpu().flatten().view(torch.uint8).numpy().data)
        for layer in self._buffers:
            layer.release()

    def back(self) -> Prefix:
        """The prefix as it was. Raises OSError where its file cannot be read."""
        if self._file is not None:
            self._file.seek(0)
        for number, (layer, shapes) in enumerate(zip(self._buffers, self._shapes, strict=True)):
            pair = [self._read(*one) for one in shapes] if self._file is not None else self._tensors[number]
            layer.update(*(one.to(device) for one, (_, _, device) in zip(pair, shapes, strict=True)))
        return self._prefix

    def _read(self, shape: torch.Size, dtype: torch.dtype, device: torch.device) -> Tensor:
        del device
        assert self._file is not None
        found = torch.empty(shape, dtype=dtype)
        if self._file.readinto(found.flatten().view(torch.uint8).numpy().data) != found.nbytes:
            raise OSError(errno.EIO, "a context that was put there is cut off")
        return found


class PrefixStore:
    """Prefixes by key within a byte budget: the least recently used goes elsewhere, or can be made again.

    budget_bytes  of keys and values on the model's device
    offload       where those go that do not fit: host, disk, none; auto: from a GPU to host memory, else to disk
    folder        of the files on disk; None: there is no disk

    Method state is kept for the prefix in use alone.
    """

    def __init__(self, budget_bytes: int, offload: str = "none", folder: Path | None = None) -> None:
        self.budget_bytes, self.offload, self.folder = budget_bytes, offload, folder
        self._held: OrderedDict[Hashable, Prefix] = OrderedDict()
        self._away: OrderedDict[Hashable, Elsewhere] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Prefix]) -> Prefix:
        """The prefix of `key`, made when it is not held."""
        if self._held and key != next(reversed(self._held)):
            self._held[next(reversed(self._held))].drop_state()
        if key in self._held:
            self._held.move_to_end(key)
        else:
            trim()
            self._held[key] = self._returned(key) or make()
            trim()
            while len(self._held) > 1 and sum(prefix.nbytes for prefix in self._held.values()) > self.budget_bytes:
                self._put_away(*self._held.popitem(last=False))
        return self._held[key]

    def shrink(self) -> None:
        """Hold none of them here."""
        while self._held:
            self._put_away(*self._held.popitem(last=False))

    def _returned(self, key: Hashable) -> Prefix | None:
        found = self._away.pop(key, None)
        try:
            return None if found is None else found.back()
        except OSError as error:
            log.warning("a context is prefilled again: %s", error)
            return None

    def _put_away(self, key: Hashable, prefix: Prefix) -> None:
        """Where there is a place for it; the least recently used leave that."""
        buffers = [layer for layer in prefix.cache.layers if type(layer) is BufferLayer]
        on_host = self.offload == "host" or (self.offload == "auto" and buffers and buffers[0].device.type != "cpu")
        if self.offload == "none" or len(buffers) < len(prefix.cache.layers) or not (on_host or self.folder):
            return
        try:
            self._away[key] = Elsewhere(prefix, None if on_host else self.folder)
        except OSError as error:
            log.warning("compute.offload=none from here on: %s cannot hold contexts (%s)", self.folder, error)
            self.offload = "none"
        while sum(one.nbytes for one in self._away.values()) > AWAY_BYTES:
            self._away.popitem(last=False)


def trim() -> None:
    """Give the system back what a pass leaves behind: glibc keeps it, which is more than a context."""
    with suppress(AttributeError, OSError, TypeError):  # of other systems
        ctypes.CDLL(None).malloc_trim(0)
