"""What a model keeps of questions that go on from one context together: their own keys and values, behind its own."""

from typing import Any

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from sahub.attention.shared import SharedPrefix
from sahub.engine.contexts.cache import BufferLayer


class SharedLayer(CacheLayerMixin):
    """One layer: the buffer of a prefix, [1, Hkv, n, D], and behind it `room` tokens for each of `batch` sequences."""

    def __init__(self, prefix: BufferLayer, *, batch: int, room: int) -> None:
        super().__init__()
        self.prefix, self.batch, self.room, self.used = prefix, batch, room, 0
        prefix.reserve(prefix.length + batch * room)
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The buffer is there."""

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append n tokens to each sequence, [B, Hkv, n, D]; returns views of their own keys and values so far."""
        begin, self.used = self.used, self.used + key_states.shape[2]
        keys, values = (each.tails for each in self.keys_values())
        keys[:, :, begin:], values[:, :, begin:] = key_states, value_states
        return keys, values

    def keys_values(self) -> tuple[SharedPrefix, SharedPrefix]:
        """Those of the prefix and of each sequence, [B, Hkv, K, D]."""
        held: dict[str, int] = {"batch": self.batch, "room": self.room, "used": self.used}
        keys, values = (SharedPrefix(one, self.prefix.length, **held) for one in (self.prefix.keys, self.prefix.values))
        return keys, values

    def keep(self, rows: Tensor) -> None:
        """Forget all sequences but these, int64 [n]."""
        own = [each.tails[rows] for each in self.keys_values()]
        self.batch = len(rows)
        for each, kept in zip(self.keys_values(), own, strict=True):
            each.tails[:] = kept

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Keys of its own after appending `query_length` tokens, and the tokens before them."""
        return self.used + query_length, self.prefix.length

    def get_seq_length(self) -> int:
        """Tokens of each sequence, the prefix included."""
        return self.prefix.length + self.used

    def get_max_length(self) -> int:
        """-1: as much as the buffer holds."""
        return -1

    def reset(self) -> None:
        """Forget all but the prefix."""
        self.used = 0


def is_shareable(cache: Cache) -> bool:
    """Whether all that a cache holds are keys and values of full attention, which sequences can go on from together."""
    return all(type(layer) is BufferLayer for layer in cache.layers)


def shared_cache(prefix: Cache, *, batch: int, room: int) -> Cache:
    """A cache of `batch` sequences that go on from the end of another one, by at most `room` tokens each."""
    return Cache(layers=[SharedLayer(layer, batch=batch, room=room) for layer in prefix.layers])
