"""Prefilled contexts: what a model holds after them, rewound for every question and every stack, and put elsewhere."""

import ctypes
import errno
import hashlib
import logging
import weakref
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryFile
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from sahub.attention.stack import Stack, StackState
from sahub.engine.cache import BufferLayer, State, held, nbytes, new_cache, restore
from sahub.models.rope import fixed_frequencies, frequencies
from sahub.models.supported import shared_keys

log = logging.getLogger(__name__)
AT_ONCE = 8192  # tokens of a context that pass through the model together
INDEX_SETS = 8  # kept per prefix: the stacks of one batch of trials
AWAY_BYTES = 32 << 30  # of what is kept elsewhere


@dataclass
class Prefix:
    """A prefilled context, and the method state that was built from it.

    `indexes` maps (layer, the stack's index keys) to frozen indexes: stacks that differ only in budgets share them.
    """

    cache: Cache
    context_ids: tuple[int, ...]
    room: int  # tokens that are kept free for question and answer
    frequencies: Hashable = None  # of its rotary embedding, where these follow the length, see sahub.models.rope
    shared: Mapping[int, int] = field(default_factory=dict)  # layers without keys of their own, and whose they read
    example: int = 0  # of the context, for random numbers
    indexes: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)
    states: list[State] = field(init=False)

    def __post_init__(self) -> None:
        self.states = [held(layer) for layer in self.cache.layers]

    @property
    def length(self) -> int:
        """Tokens of the context."""
        return len(self.context_ids)

    @property
    def is_away(self) -> bool:
        """Whether its keys and values are elsewhere, or there are none."""
        return not all(layer.is_initialized for layer in self.cache.layers if isinstance(layer, BufferLayer))

    def remember(self, key: Hashable, indexes: Any) -> None:
        """Keep indexes for the next stack; the oldest leave, for indexes can be as large as the context itself."""
        self.indexes[key] = indexes
        while len(self.indexes) > INDEX_SETS * len(self.cache.layers):
            self.indexes.popitem(last=False)

    def drop_state(self) -> None:
        """Forget what was built from the context: it can be made again."""
        self.indexes.clear()

    def rewind(self) -> None:
        """Back to the end of the context."""
        for layer, state in zip(self.cache.layers, self.states, strict=True):
            restore(layer, state, self.length)

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """The context's keys and values that one layer attends to, [1, Hkv, length, D]."""
        buffer = self.cache.layers[self.shared.get(layer, layer)]
        return buffer.keys[:, :, : self.length], buffer.values[:, :, : self.length]

    def state(self, stack: Stack, layer: int, seed: int) -> StackState:
        """The stack's state at the end of the prefix; indexes that a stack with the same ones built are shared."""
        known: dict[str, Any] = {"layer": layer, "seed": seed, "example": self.example}
        key = (layer, seed, stack.index_keys())
        if key not in self.indexes:
            built = stack.new_state(**known)
            built.append(*self.keys_values(layer), None)
            built.freeze()
            self.remember(key, built.indexes)
        return stack.new_state(**known, indexes=self.indexes[key], length=self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of all that is held, copies for the next question included; keys that layers share count once."""
        return sum(map(nbytes, [*map(vars, self.cache.layers), *self.states]))

    @property
    def buffered(self) -> int:
        """Bytes of the key-value buffers alone: what grows with the context."""
        return sum(one.keys.nbytes + one.values.nbytes for one in self.cache.layers if isinstance(one, BufferLayer))


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


def number_of(context_ids: tuple[int, ...]) -> int:
    """A number of the context's own, for its random numbers: the same whatever else is asked, and in every process."""
    return int.from_bytes(hashlib.sha256(",".join(map(str, context_ids)).encode()).digest()[:7], "big")


@torch.inference_mode()
def prefill(model: Any, ids: Tensor, *, room: int, asked: int = 0, chunk: int = AT_ONCE) -> Prefix:
    """Run the context `ids` [1, n] through the model's own dense attention, without its output layer.

    room   tokens to keep free for question and answer
    asked  tokens of the question, for rotary frequencies that follow the length of both

    Long contexts go in chunks, which bounds activations.
    """
    cache = new_cache(model.config, ids.shape[1] + room)
    least = {"logits_to_keep": 1} if model.base_model is model else {}  # some classes have their output layer inside
    with fixed_frequencies(model, ids.shape[1] + asked):
        for start in range(0, ids.shape[1], chunk):
            model.base_model(input_ids=ids[:, start : start + chunk], past_key_values=cache, use_cache=True, **least)
    return Prefix(
        cache=cache,
        context_ids=tuple(ids[0].tolist()),
        room=room,
        frequencies=frequencies(model.config, ids.shape[1] + asked),
        shared=shared_keys(model.config),
    )
