"""HashAttention: score keys by the bits that learned functions of key and query have in common."""

from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from sahub.attention.budgets import Density, Size, is_count
from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Geometry, Scores
from sahub.attention.choose import choose
from sahub.attention.rows import free_to_read
from sahub.attention.selection import Selection
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.stage import Index, Stage
from sahub.compiled.parallel import over_units
from sahub.compiled.present import at_hand
from sahub.errors import ConfigError
from sahub.index.hash_weights import MAKE, HashFile, Mlp, read_header, read_layer
from sahub.index.packed_bits import Planes, parts

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "silu": torch.nn.functional.silu,
    "relu": torch.nn.functional.relu,
    "gelu": torch.nn.functional.gelu,
    "tanh": torch.tanh,
}


@dataclass(frozen=True, kw_only=True)
class HashAttention(Stage):
    """Attend to the keys whose signature agrees with the query's in the most bits.

    signature(x) = sign(MLP(x)), +1 for 0, one MLP for queries and one for keys, of each query head as published, of
    each KV head, or of all heads, as the file has them;
    score = signature(q).signature(k), a whole number from -hat_bits to hat_bits

    Source   Desai et al. 2024, arXiv:2412.14468
    Differs  a fixed order among the many equal scores (the more recent key first); weights are read from safetensors
             alone and must be what the fields say
    Memory   MLPs per KV head * hat_bits bits per key and KV head
    """

    batched = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    select: Mapping[str, Any] | None = field(default=None, metadata={"unit": "{threshold: bits that agree - differ}"})
    hat_bits: int = field(default=32, metadata={"unit": "bits"})
    hat_mlp_layers: int = field(default=3, metadata={"unit": "layers"})
    hat_mlp_hidden_size: int = field(default=128, metadata={"unit": "channels"})
    hat_mlp_activation: str = field(default="silu", metadata={"unit": " | ".join(ACTIVATIONS)})
    weights: str | None = field(default=None, metadata={"unit": "safetensors file | embedded"})
    group: str = field(default="none", metadata={"unit": " | ".join(GROUPS)})
    file_digest: str = field(default="", init=False)  # so that another file of the same name is another stage

    def __post_init__(self) -> None:
        for name in ("hat_bits", "hat_mlp_layers", "hat_mlp_hidden_size"):
            if not is_count(getattr(self, name)) or getattr(self, name) < 1:
                raise ConfigError(f"{name}={getattr(self, name)}: must be at least 1")
        if self.hat_mlp_activation not in ACTIVATIONS:
            raise ConfigError(f"hat_mlp_activation={self.hat_mlp_activation}: must be one of {', '.join(ACTIVATIONS)}")
        self.selector  # noqa: B018  (checks the budget fields)
        found = self._file()
        held = {
            "hat_bits": found.bits,
            "hat_mlp_layers": found.mlp_layers,
            "hat_mlp_hidden_size": found.hidden_size,
            "hat_mlp_activation": found.activation,
        }
        for name, value in held.items():
            if value not in (None, getattr(self, name)):
                raise ConfigError(f"{name}={getattr(self, name)}: must be {value}, as in weights={self.weights}")
        object.__setattr__(self, "file_digest", found.digest)

    def _file(self) -> HashFile:
        if self.weights is None:
            raise ConfigError(f"weights=None: must name a safetensors file; {MAKE}")
        return read_header(self.weights)

    @cached_property
    def selector(self) -> Selector:
        """What `density`, `heavy_size` or `select` asks for."""
        return Selector.of(self.select, density=self.density, heavy_size=self.heavy_size, group=self.group)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys with the best signatures."""
        assert isinstance(index, Signatures)
        return choose(call, taken, index.scores(call), self.selector)

    def index_key(self) -> Hashable:
        """The signatures depend on the weights and on what is between them."""
        return "hash_attention", self.weights, self.file_digest, self.hat_mlp_activation

    def new_index(self, *, layer: int, seed: int, example: int) -> "Signatures":
        """No signatures yet."""
        del seed, example
        assert self.weights is not None
        return Signatures(self.weights, layer, self.hat_mlp_activation)

    def check(self, geometry: Geometry) -> None:
        """The weights must be this model's."""
        found = self._file()
        fits = found.num_heads in (1, geometry.num_kv_heads, geometry.num_heads)
        if not fits or (found.layers, found.head_dim) != (geometry.layers, geometry.head_dim):
            raise ConfigError(
                f"weights={self.weights}: are for {geometry.layers_of(found.layers)}, {found.num_heads} heads and "
                f"head_dim {found.head_dim}; the model has {len(geometry.layers)} that can be sparse, "
                f"{geometry.num_heads} (KV: {geometry.num_kv_heads}) and {geometry.head_dim}; {MAKE}"
            )

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """A signature for every MLP that reads the KV head."""
        del num_keys
        return max(1, self._file().num_heads // geometry.num_kv_heads) * self.hat_bits

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


class Signatures:
    """The signature of every key for every MLP of its KV head: bits [b, g, MLPs * hat_bits, k], packed."""

    def __init__(self, weights: str, layer: int, activation: str) -> None:
        self.length = 0
        self._weights, self._layer, self._activation = weights, layer, activation
        self._bits = Planes()
        self._words = Growing(axis=4)  # int32 [b, g, MLPs, words, k]: a key's bits side by side, for a loop

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Hash the new keys, once for every MLP that reads them."""
        del v_new, valid_new
        mlp = self._mlp("key", k_new)
        groups, num = k_new.shape[1:3]
        heads = mlp[0][0].shape[0]
        if (heads % groups and heads != 1) or mlp[0][0].shape[1] != k_new.shape[3]:
            raise ConfigError(
                f"weights={self._weights}: are for {heads} heads of {mlp[0][0].shape[1]}, not for {groups} KV heads of "
                f"{k_new.shape[3]}"
            )
        widest = max(k_new.shape[3], *(weight.shape[2] for weight, _ in mlp))
        self._bits.reserve(num)
        self._words.reserve(num)
        for part in parts(k_new, max(1, heads // groups) * widest):
            found = _positive(part.repeat_interleave(max(1, heads // groups), dim=1), mlp, self._activation)
            bits = found.transpose(-1, -2).unflatten(1, (groups, -1))  # [b, g, MLPs, n, k]
            self._bits.append(bits.flatten(2, 3))
            if free_to_read(bits) and at_hand():
                self._words.append(_words(bits))
        self.length += num

    def freeze(self) -> None:
        """Nothing is learned from a prefix."""

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Drop the signatures after `length`."""
        del k, v, valid
        self.length = min(self.length, length)
        self._bits.truncate(length)
        self._words.truncate(length)

    def fork(self) -> Self:
        """The same signatures; whoever writes first copies."""
        twin = type(self)(self._weights, self._layer, self._activation)
        twin.length, twin._bits, twin._words = self.length, self._bits.fork(), self._words.fork()
        return twin

    def take(self, rows: Tensor) -> Self:
        """See Index."""
        twin = self.fork()
        twin._bits, twin._words = self._bits.take(rows), self._words.take(rows)
        return twin

    def scores(self, call: Call) -> Scores:
        """Bits that agree minus bits that differ: whole numbers, so that nothing is rounded."""
        mlp, group = self._mlp("query", call.q), call.num_heads // call.num_kv_heads
        heads = mlp[0][0].shape[0]
        if heads not in (1, call.num_kv_heads, call.num_heads):  # a loop would read signatures that are not there
            raise ConfigError(
                f"weights={self._weights}: are for {heads} heads, not for {call.num_heads} (KV: {call.num_kv_heads})"
            )
        several = [tuple(x.repeat_interleave(call.num_heads // x.shape[0], dim=0) for x in layer) for layer in mlp]
        asked = _positive(call.q, several, self._activation).unflatten(1, (call.num_kv_heads, group))
        if free_to_read(asked) and at_hand():
            return Scores(logits=self._agreeing(asked).flatten(1, 2))
        signs = _signs(asked)
        known = _signs(self._bits.bits()).unflatten(2, (-1, signs.shape[-1]))  # [b, g, MLPs, n, k]
        return Scores(logits=(signs @ known).flatten(1, 2))

    def _agreeing(self, asked: Tensor) -> Tensor:
        """The scores of query bits [b, g, r, q, n]: fp32 [b, g, r, q, k]."""
        from sahub.compiled.scoring import agreeing  # takes a second to import

        words = _words(asked.transpose(-1, -2)).transpose(-1, -2).contiguous()  # [b, g, r, q, words]
        out = torch.empty(*asked.shape[:4], self._words.length)
        known = self._words.memory.numpy().view("u4")
        given = known, words.numpy().view("u4"), asked.shape[-1], out.numpy()
        over_units(agreeing(), out.shape[0] * out.shape[1], words.shape[-1] * out.numel(), *given)
        return out

    def _mlp(self, side: str, like: Tensor) -> Mlp:
        return read_layer(self._weights, self._layer, str(like.device))[side]

    @property
    def code_bytes(self) -> int:
        """Bytes that the signatures take."""
        return self._bits.nbytes

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self.code_bytes + (self._words.data.nbytes if self._words.length else 0)


def outputs(x: Tensor, mlp: Sequence[tuple[Tensor, ...]], activation: str) -> Tensor:
    """What each head's MLP makes of x [(b,) h, n, d]: fp32 [(b,) h, n, bits]."""
    x = x.float()
    for number, (weight, bias) in enumerate(mlp):
        x = x if number == 0 else ACTIVATIONS[activation](x)
        x = x @ weight.float() + bias.float()[:, None]
    return x


def _positive(x: Tensor, mlp: Sequence[tuple[Tensor, ...]], activation: str) -> Tensor:
    """The bits of x [b, h, n, d]: bool [b, h, n, bits]."""
    return outputs(x, mlp, activation) >= 0


def _signs(bits: Tensor) -> Tensor:
    """Bits as -1 and 1."""
    return bits.float() * 2 - 1


def _words(bits: Tensor) -> Tensor:
    """Bits [..., n, k], 32 of them in a number: int32 [..., n / 32 rounded up, k]."""
    padded = torch.nn.functional.pad(bits, (0, 0, 0, -bits.shape[-2] % 32)).unflatten(-2, (-1, 32))
    packed: Tensor = (padded.long() << torch.arange(32, device=bits.device)[:, None]).sum(-2)
    return packed.int()
