"""Prefilled contexts: what a model holds after them, rewound for every question and every stack."""

import hashlib
from collections import OrderedDict
from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache

from sahub.attention.stack import Stack, StackState
from sahub.engine.contexts.cache import BufferLayer, State, held, nbytes, restore

INDEX_SETS = 8  # kept per prefix: the stacks of one batch of trials


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


def number_of(context_ids: tuple[int, ...]) -> int:
    """A number of the context's own, for its random numbers: the same whatever else is asked, and in every process."""
    return int.from_bytes(hashlib.sha256(",".join(map(str, context_ids)).encode()).digest()[:7], "big")
