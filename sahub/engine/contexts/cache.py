"""What a model keeps of a text, layer by layer: buffers of keys and values where every key is attended to.

All other layers (windows, chunks, linear attention, state spaces) keep what transformers' own cache keeps for them.
"""

from typing import Any

from torch import Tensor
from transformers import PretrainedConfig
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    CacheLayerMixin,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionLayer,
    get_layer_types_and_kwargs,
)

from sahub.attention.buffers import apart
from sahub.models.supported import layer_kinds, shared_keys, text_of


class BufferLayer(CacheLayerMixin):
    """Keys and values of one layer, [B, Hkv, room, D], written in place: appending a token copies one token."""

    is_croppable = True

    def __init__(self, room: int, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.room, self.length = room, 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Allocate the buffers for the shape and dtype of the first keys and values."""
        self.dtype, self.device = key_states.dtype, key_states.device
        self.keys, self.values = (
            apart((*one.shape[:2], self.room, one.shape[3]), one) for one in (key_states, value_states)
        )
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        """Append n tokens; returns views of all keys [B, Hkv, K, D] and values so far."""
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[2]
        if end > self.room:
            self.reserve(max(end, self.room + self.room // 4))
        self.keys[:, :, self.length : end] = key_states
        self.values[:, :, self.length : end] = value_states
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]

    def reserve(self, room: int) -> None:
        """Make room for so many tokens."""
        if room <= self.room:
            return
        self.room = room
        old = self.keys[:, :, : self.length], self.values[:, :, : self.length]
        self.lazy_initialization(*old)
        self.keys[:, :, : self.length], self.values[:, :, : self.length] = old

    def release(self) -> None:
        """Forget everything, and give the memory back."""
        del self.keys, self.values
        self.length, self.is_initialized = 0, False

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


class HybridLayer(BufferLayer, LinearAttentionAndFullAttentionLayer):
    """A buffer beside the convolution and recurrent states of a state-space branch in the same layer."""

    def lazy_initialization(self, *args: Any, **kwargs: Any) -> None:
        """Keys and values come as two tensors, the states of the branch by name."""
        kind = LinearAttentionLayer if kwargs else BufferLayer
        kind.lazy_initialization(self, *args, **kwargs)


def new_cache(config: PretrainedConfig, room: int) -> Cache:
    """An empty cache for a model: buffers of `room` tokens for full attention, else what transformers has for it."""
    text, kinds, shared = text_of(config), layer_kinds(config), shared_keys(config)
    layers: list[Any] = []
    for number, (declared, given) in enumerate(zip(*get_layer_types_and_kwargs(text), strict=True)):
        if kinds[number] == "full_attention" and number not in shared:
            layers.append(BufferLayer(room))
        elif kinds[number] == "hybrid":
            layers.append(HybridLayer(room, **given))
        else:
            layers.append(DYNAMIC_LAYER_TYPE_MAPPING[declared](**given))
    return Cache(layers=layers)


State = dict[str, Any]


def held(layer: Any) -> State:
    """A copy of what a layer holds beside its buffers, to `restore` it with."""
    cut = {"keys", "values", "length", "room"} if isinstance(layer, BufferLayer) else set()
    return {name: _copied(value) for name, value in vars(layer).items() if name not in cut}


def restore(layer: Any, state: State, length: int) -> None:
    """Make a layer what it was after `length` tokens, when `held` was called.

    States (in dicts) are written in place and copied again; windows are replaced at each update.
    """
    vars(layer).update({name: _copied(value) if isinstance(value, dict) else value for name, value in state.items()})
    if isinstance(layer, BufferLayer):
        layer.rewind(length)


def nbytes(held: Any) -> int:
    """Bytes of a tensor, or of all tensors in a state."""
    if isinstance(held, dict):
        return sum(map(nbytes, held.values()))
    return held.nbytes if isinstance(held, Tensor) else 0


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _copied(one) for key, one in value.items()}
    return value.clone() if isinstance(value, Tensor) else value
