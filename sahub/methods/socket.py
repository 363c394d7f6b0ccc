"""SOCKET: score keys by how likely a softly hashed query falls into their buckets."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Self

import torch
from torch import Tensor

from sahub.attention.budgets import Density, Size, is_count, is_number
from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Geometry, Scores
from sahub.attention.choose import choose
from sahub.attention.selection import Selection
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError
from sahub.index.codes import MOST_BITS, Codes
from sahub.index.lsh import normals
from sahub.index.packed_bits import parts

_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, kw_only=True)
class Socket(Stage):
    """Attend to the keys whose buckets a soft hash of the query finds likely, in many tables, times the value's norm.

    bucket_l(k) = the sides of k on the lsh_k random planes of table l
    score(k) = |v| * sum over lsh_l tables of P_l(bucket_l(k))
    P_l = softmax of h.c / tau over the buckets c in {-1, 1}^lsh_k,  h = tanh(q.planes_l) / sqrt(d)

    Source   SOCKET, arXiv:2602.06283
    Differs  the softmax over 2^lsh_k buckets is written as the product of lsh_k independent sigmoids, which it is; kept
             keys cost no budget; keys are hashed once; |v| is held in fp16
    Memory   lsh_l * lsh_k + 16 bits per key and KV head
    """

    batched = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    select: Mapping[str, Any] | None = field(default=None, metadata={"unit": "{top_p: share} of the scores"})
    lsh_l: int = field(default=55, metadata={"unit": "tables", "search": {"low": 20, "high": 70, "step": 5}})
    lsh_k: int = field(default=11, metadata={"unit": "bits a table", "search": {"low": 6, "high": 12}})
    tau: float = field(default=0.5, metadata={"unit": "temperature", "search": {"low": 0.1, "high": 1.0, "log": True}})
    group: str = field(default="none", metadata={"unit": " | ".join(GROUPS)})

    def __post_init__(self) -> None:
        for name, unit in (("lsh_l", "table"), ("lsh_k", "bit a table")):
            value = getattr(self, name)
            if not is_count(value) or value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1 {unit}")
        if self.lsh_k > MOST_BITS:
            raise ConfigError(f"lsh_k={self.lsh_k}: must be at most {MOST_BITS} bits a table")
        if not is_number(self.tau) or not self.tau > 0:
            raise ConfigError(f"tau={self.tau}: must be a temperature above 0")
        self.selector  # noqa: B018  (checks the budget fields)

    @cached_property
    def selector(self) -> Selector:
        """What `density`, `heavy_size` or `select` asks for."""
        return Selector.of(self.select, density=self.density, heavy_size=self.heavy_size, group=self.group)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys of the best buckets."""
        assert isinstance(index, Buckets)
        if self.keeps_all:
            return taken.all()
        scores = index.scores(call, self.tau)
        if self.select is not None:  # mass is exp(logit), and the scores are masses
            scores = scores.log()
        return choose(call, taken, Scores(logits=scores), self.selector)

    def index_key(self) -> Hashable:
        """Codes depend on the planes alone."""
        return "socket", self.lsh_l, self.lsh_k

    def new_index(self, *, layer: int, seed: int, example: int) -> "Buckets":
        """No keys yet."""
        del example
        return Buckets(self.lsh_l, self.lsh_k, seed, layer)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """A bit for every plane, and the norm of the value."""
        del geometry, num_keys
        return self.lsh_l * self.lsh_k + 16.0

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


class Buckets:
    """The sides of every key, and the norm of every value. Appending a key costs O(d * planes); nothing is learned."""

    def __init__(self, tables: int, width: int, seed: int, layer: int) -> None:
        self.length = 0
        self._tables, self._width = tables, width
        self._seed, self._layer = seed, layer
        self._codes, self._norms = Codes(width), Growing(axis=2)  # [b, g, tables, k]; fp16 [b, g, k]

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Hash the keys."""
        del valid_new
        self.length += k_new.shape[2]
        places = torch.arange(self._width, dtype=torch.int16, device=k_new.device)
        self._codes.reserve(k_new.shape[2])
        for keys in parts(k_new, self._tables * self._width):
            above = (keys.float() @ self.planes(keys) >= 0).unflatten(-1, (self._tables, self._width))
            codes = (above.to(torch.int16) << places).sum(-1, dtype=torch.int16)  # of MOST_BITS at most
            self._codes.append(codes.transpose(-1, -2))
        norms = torch.linalg.vector_norm(v_new.float(), dim=-1)
        self._norms.append(norms.clamp(max=_LARGEST).to(torch.float16))

    def freeze(self) -> None:
        """Nothing is learned from a prefix."""

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Forget the keys from `length` on."""
        del k, v, valid
        self.length = min(self.length, length)
        self._codes.truncate(length)
        self._norms.truncate(length)

    def fork(self) -> Self:
        """The same codes; whoever writes first copies."""
        twin = type(self)(self._tables, self._width, self._seed, self._layer)
        twin.length, twin._codes, twin._norms = self.length, self._codes.fork(), self._norms.fork()
        return twin

    def take(self, rows: Tensor) -> Self:
        """See Index."""
        twin = self.fork()
        twin._codes, twin._norms = self._codes.take(rows), self._norms.take(rows)
        return twin

    @property
    def code_bytes(self) -> int:
        """Bytes that codes and norms take; the planes are a function of seed and layer."""
        return self._codes.packed_bytes + (self._norms.data.nbytes if self.length else 0)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self.code_bytes + self._codes.read_bytes

    def planes(self, like: Tensor) -> Tensor:
        """fp32 [d, tables * width], a table's planes side by side."""
        return normals(self._seed, self._layer, like.shape[-1], self._tables * self._width, like.device)

    def scores(self, call: Call, tau: float) -> Tensor:
        """fp32 [b, h, q, k], at least 0; a key's score depends on that key alone."""
        group = call.num_heads // call.num_kv_heads
        odds = torch.tanh(call.q.float() @ self.planes(call.q)) * (2 * call.q.shape[-1] ** -0.5 / tau)
        odds = odds.unflatten(-1, (self._tables, self._width)).unflatten(1, (-1, group))
        odds = odds.permute(0, 1, 4, 5, 2, 3).flatten(4)  # log-odds of each side: [b, g, tables, width, group * q]
        low, high = map(_chances, odds.tensor_split(2, dim=3))
        total = self._codes.worth(high, low)
        total *= self._norms.data[:, :, None].float()
        heads: Tensor = total.unflatten(2, (group, -1)).flatten(1, 2)
        return heads


def _chances(odds: Tensor) -> Tensor:
    """P of each of 2^n buckets, fp32 [b, g, t, 2^n, r], of the log-odds [b, g, t, n, r] of its sides, lowest first."""
    if odds.shape[3] == 0:
        return odds.new_ones(*odds.shape[:3], 1, odds.shape[4])
    if odds.shape[3] == 1:
        return torch.cat([odds.neg(), odds], dim=3).sigmoid_()
    low, high = map(_chances, odds.tensor_split(2, dim=3))
    return (high[:, :, :, :, None] * low[:, :, :, None]).flatten(3, 4)
