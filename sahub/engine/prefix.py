"""Prefilled contexts: what a model holds after them, rewound for every question and every stack."""

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache

from sahub.attention.stack import Stack, StackState
from sahub.engine.cache import BufferLayer, State, held, nbytes, new_cache, restore
from sahub.models.rope import fixed_frequencies, frequencies
from sahub.models.supported import shared_keys

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


def number_of(context_ids: tuple[int, ...]) -> int:
    """A number of the context's own, for its random numbers: the same whatever else is asked, and in every process."""
    return int.from_bytes(hashlib.sha256(",".join(map(str, context_ids)).encode()).digest()[:7], "big")


@torch.inference_mode()
def prefill(model: Any, ids: Tensor, *, room: int, asked: int = 0, chunk: int = 8192) -> Prefix:
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
