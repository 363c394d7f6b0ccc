"""Prefilled contexts: keys and values in buffers with room to answer, rewound for every question and every stack."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from sahub.attention.stack import Stack, StackState

INDEX_SETS = 8  # kept per prefix: the stacks of one batch of trials


class BufferLayer(CacheLayerMixin):
    """Keys and values of one layer, [B, Hkv, room, D], written in place: appending a token copies one token."""

    is_croppable = True

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers for the shape and dtype of the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys = key_states.new_empty((*key_states.shape[:2], self.room, key_states.shape[3]))
        self.values = value_states.new_empty((*value_states.shape[:2], self.room, value_states.shape[3]))
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append n tokens; returns views of all keys [B, Hkv, K, D] and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.room:
            self._grow(end)
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def _grow(self, needed: int) -> None:
        self.room = max(needed, self.room + self.room // 4)
        old = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        self.lazy_initialization(*old)
        self.keys[:, :, : self.length], self.values[:, :, : self.length] = old

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys after appending `query_length` tokens, and their offset."""
        return self.length + query_length, 0

    def get_seq_length(self) -> int:
        """Tokens held."""
        return self.length

    def get_max_length(self) -> int:
        """-1: the buffer grows when it must."""
        return -1

    def rewind(self, length: int) -> None:
        """Forget every token after the first `length`."""
        self.length = min(self.length, length)

    def crop(self, tokens_to_remove: int) -> None:
        """transformers' way to rewind: a negative number of tokens."""
        self.rewind(self.length + tokens_to_remove)

    def reset(self) -> None:
        """Forget everything."""
        self.length = 0

    @property
    def nbytes(self) -> int:
        """Bytes of both buffers."""
        if not self.is_initialized:
            return 0
        return self.keys.nbytes + self.values.nbytes


@dataclass
class Prefix:
    """A prefilled context of `length` tokens, and the method state that was built from it.

    `indexes` maps (layer, the stack's index keys) to frozen indexes: stacks that differ only in budgets share them.
    """

    cache: Cache
    length: int
    example: int = 0  # of the context, for random numbers
    indexes: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict)
    traces: dict[Hashable, Any] = field(default_factory=dict)  # of its questions, for replay

    def remember(self, key: Hashable, indexes: Any) -> None:
        """Keep indexes for the next stack; the oldest leave, for indexes can be as large as the context itself."""
        self.indexes[key] = indexes
        while len(self.indexes) > INDEX_SETS * len(self.cache.layers):
            self.indexes.popitem(last=False)

    def drop_state(self) -> None:
        """Forget what was built from the context: it can be made again."""
        self.indexes.clear()
        self.traces.clear()

    def rewind(self) -> None:
        """Back to the end of the context."""
        for layer in self.cache.layers:
            layer.rewind(self.length)

    def keys_values(self, layer: int) -> tuple[Tensor, Tensor]:
        """The context's keys and values of one layer, [1, Hkv, length, D]."""
        buffer = self.cache.layers[layer]
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

    def with_tail(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """The context's keys and values of a layer followed by these, in its buffer: until the next rewind."""
        buffer = self.cache.layers[layer]
        buffer.rewind(self.length)
        found: tuple[Tensor, Tensor] = buffer.update(keys, values)
        return found

    @property
    def nbytes(self) -> int:
        """Bytes of the key-value buffers."""
        return sum(layer.nbytes for layer in self.cache.layers)


def new_cache(num_layers: int, room: int) -> Cache:
    """An empty cache of buffers of `room` tokens."""
    return Cache(layers=[BufferLayer(room) for _ in range(num_layers)])


class PrefixStore:
    """Prefixes by key within a byte budget: the least recently used leaves; anything can be made again.

    Method state is kept for the prefix in use alone.
    """

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held: OrderedDict[Hashable, Prefix] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Prefix]) -> Prefix:
        """The prefix of `key`, made when it is not held."""
        if self._held and key != next(reversed(self._held)):
            self._held[next(reversed(self._held))].drop_state()
        if key in self._held:
            self._held.move_to_end(key)
        else:
            self._held[key] = make()
            while len(self._held) > 1 and sum(prefix.nbytes for prefix in self._held.values()) > self.budget_bytes:
                self._held.popitem(last=False)
        return self._held[key]


@torch.inference_mode()
def prefill(model: Any, ids: Tensor, *, num_layers: int, room: int, chunk: int = 8192) -> Prefix:
    """Run the context `ids` [1, n] through the model's own dense attention, without its output layer.

    `room`: tokens to keep free for question and answer. Long contexts go in chunks, which bounds activations.
    """
    cache = new_cache(num_layers, ids.shape[1] + room)
    for start in range(0, ids.shape[1], chunk):
        model.base_model(input_ids=ids[:, start : start + chunk], past_key_values=cache, use_cache=True)
    return Prefix(cache=cache, length=ids.shape[1])
