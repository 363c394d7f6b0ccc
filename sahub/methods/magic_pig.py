"""MagicPIG: sample keys by locality-sensitive hashing, and weigh them by how likely they were to be found."""

from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import reduce
from itertools import product
from math import comb
from typing import ClassVar

import torch
from torch import Tensor

from sahub.attention.budgets import is_count, is_number
from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Geometry, Picks
from sahub.attention.choose import free_keys
from sahub.attention.gather import by_rows, dots_at
from sahub.attention.rows import at_once, free_to_read
from sahub.attention.selection import Selection
from sahub.attention.selectors import picked, threshold
from sahub.attention.stage import Index, Stage
from sahub.compiled.parallel import over_units
from sahub.compiled.present import at_hand
from sahub.errors import ConfigError
from sahub.index.lsh import normals, sides
from sahub.index.packed_bits import Planes, parts
from sahub.index.prefix_codes import Chunk, Coding, valid_keys

_OUT = float("-inf")
_CACHED_BYTES = 1 << 19  # of what is found in some tables of a KV head
_LEAST = 1e-4  # of an inclusion probability
_LARGEST = torch.finfo(torch.float16).max


@dataclass(frozen=True, kw_only=True)
class MagicPig(Stage):
    """Attend to the keys that share a bucket with the query in at least `min_hits` of lsh_l hash tables.

    bucket_l(x) = the sides of x on the lsh_k random planes of table l;  keys are hashed as k' = k - mean of the prefix
    p = (1 - angle(q, k') / pi)^lsh_k,  P(kept) = 1 - sum over i < min_hits of C(lsh_l, i) p^i (1 - p)^(lsh_l - i)

    center=keys | none         whether keys are centred; a shift of all keys does not change the softmax
    transform=none             the angle between q and k'
    transform=simple_lsh       between [q, 0] and [k', sqrt(M^2 - |k'|^2)], M = headroom * largest |k'| of the prefix;
                               larger keys that come later are taken as |k'| = M

    Source   Chen et al. 2024, arXiv:2410.16179, sec. 4
    Differs  the mean is over all valid keys of the prefix, so that the index does not depend on sink and window; |k'|
             is held in fp16; a chance below 1e-4 counts as 1e-4, which loses a little mass in place of huge weights
    Memory   lsh_l * lsh_k + 16 bits per key and KV head
    """

    samples: ClassVar[bool] = True
    batched = True

    lsh_l: int = field(default=75, metadata={"unit": "tables", "search": {"low": 20, "high": 300, "log": True}})
    lsh_k: int = field(default=8, metadata={"unit": "bits a table", "search": {"low": 4, "high": 14}})
    min_hits: int = field(default=2, metadata={"unit": "tables", "search": {"choices": [1, 2]}})
    center: str = field(default="keys", metadata={"unit": "keys | none"})
    transform: str = field(default="none", metadata={"unit": "none | simple_lsh"})
    headroom: float = field(default=1.1, metadata={"unit": "of the largest norm, for simple_lsh"})

    def __post_init__(self) -> None:
        for name, unit in (("lsh_l", "table"), ("lsh_k", "bit a table"), ("min_hits", "table")):
            value = getattr(self, name)
            if not is_count(value) or value < 1:
                raise ConfigError(f"{name}={value}: must be at least 1 {unit}")
        if self.lsh_k > 64:
            raise ConfigError(f"lsh_k={self.lsh_k}: must be at most 64 bits a table")
        if self.min_hits > self.lsh_l:
            raise ConfigError(f"min_hits={self.min_hits}: must be at most lsh_l={self.lsh_l} tables")
        for name, known in (("center", ("keys", "none")), ("transform", ("none", "simple_lsh"))):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)}: must be one of {', '.join(known)}")
        if not is_number(self.headroom) or self.headroom < 1:
            raise ConfigError(f"headroom={self.headroom}: must be at least 1")

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys that were found, each with the probability of finding it."""
        assert isinstance(index, Tables)
        index = index.ready(call)
        words = call.rows.num_keys // 8 + 1
        per_row = call.rows.batch * call.num_heads * max(call.rows.num_keys, self.lsh_l * words)
        return by_rows(call, taken, per_row, lambda part, kept: self._pick(part, kept, index))

    def _pick(self, call: Call, taken: Selection, index: "Tables") -> Picks:
        found = index.hits(call, self.min_hits) & free_keys(call, taken)
        units, weight = picked(found) if free_to_read(found) else threshold(torch.where(found, 0.0, _OUT), 0.0)
        chance = self._chance(index.cosines(call, units))
        return Picks(units, torch.where(weight > _OUT, -chance.clamp(_LEAST, 1.0).log().float(), _OUT))

    def _chance(self, cosines: Tensor) -> Tensor:
        """P(kept) of a key at such an angle to the query, fp64."""
        one = (1 - torch.arccos(cosines.double().clamp(-1, 1)) / torch.pi) ** self.lsh_k
        missed = (comb(self.lsh_l, i) * one**i * (1 - one) ** (self.lsh_l - i) for i in range(self.min_hits))
        return 1 - torch.stack(list(missed)).sum(0)

    def index_key(self) -> Hashable:
        """Everything but min_hits."""
        return "magic_pig", self.lsh_l, self.lsh_k, self.center, self.transform, self.headroom

    def new_index(self, *, layer: int, seed: int, example: int) -> "Tables":
        """No keys yet."""
        del example
        return Tables(self, seed, layer)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """A bit for every plane, and the norm of the key."""
        del geometry, num_keys
        return self.lsh_l * self.lsh_k + 16.0


class Tables(Coding):
    """The sides and the norm of every centred key. Appending a key costs O(d * planes) once the prefix has ended."""

    def __init__(self, stage: MagicPig, seed: int, layer: int) -> None:
        super().__init__()
        self._stage, self._seed, self._layer = stage, seed, layer
        self._sides, self._norms = Planes(), Growing(axis=2)
        self._mean: Tensor  # fp32 [b, g, 1, d]
        self._top: Tensor  # fp32 [b, g, 1]: M of simple_lsh, else 0

    @property
    def nbytes(self) -> int:
        """Bytes in use for the keys; the planes are a function of seed and layer."""
        return self._sides.nbytes + (self._norms.data.nbytes if self._sides.length else 0)

    def planes(self, like: Tensor) -> Tensor:
        """fp32 [d, tables * bits], a table's planes side by side; one more row for simple_lsh."""
        stage = self._stage
        dim = like.shape[-1] + (stage.transform == "simple_lsh")
        return normals(self._seed, self._layer, dim, stage.lsh_l * stage.lsh_k, like.device)

    def hits(self, call: Call, least: int) -> Tensor:
        """Whether query and key share a bucket in `least` tables or more: bool [b, h, q, k]."""
        tables, width, group = self._stage.lsh_l, self._stage.lsh_k, call.num_heads // call.num_kv_heads
        asked = sides(call.q.float() @ self.planes(call.q)[: call.q.shape[-1]]) * 255  # a byte holds eight keys
        asked = asked.unflatten(1, (-1, group)).flatten(2, 3).unflatten(-1, (tables, width))
        words = (call.rows.num_keys + 7) // 8
        held = self._sides.memory.unflatten(2, (tables, width))  # [b, g, l, bits, words or more]
        found = held.new_empty(*asked.shape[:3], words)
        if free_to_read(held) and at_hand():
            from sahub.compiled.scoring import meeting  # takes a second to import

            given = held.numpy(), asked.contiguous().numpy(), least, found.numpy()
            over_units(meeting(), held.shape[0] * held.shape[1], tables * width * found.numel(), *given)
        else:
            size = max(1, at_once(held.device, _CACHED_BYTES) // (asked.shape[2] * words))
            for b, g in product(range(held.shape[0]), range(held.shape[1])):  # a core's cache holds some tables
                pairs = zip(held[b, g, ..., :words].split(size), asked[b, g, ..., None].split(size, dim=1), strict=True)
                found[b, g] = reduce(_together, [_found(*part, least) for part in pairs])[-1]
        places = torch.arange(8, dtype=torch.uint8, device=held.device)
        found = ((found[..., None] >> places) & 1).flatten(-2)[..., : call.rows.num_keys]
        heads: Tensor = found.bool().unflatten(2, (group, -1)).flatten(1, 2)
        return heads

    def cosines(self, call: Call, slots: Tensor) -> Tensor:
        """Of the angle between query and key in the space of the planes, 0 for a key without a direction."""
        group = call.num_heads // call.num_kv_heads
        wide = self._mean.repeat_interleave(group, dim=1)
        dots = dots_at(call, slots) - (call.q.float() * wide).sum(-1, keepdim=True)
        norms = self._norms.data.float().maximum(self._top).repeat_interleave(group, dim=1)[:, :, None]
        norms = norms.expand(-1, -1, call.rows.num_rows, -1).gather(-1, slots)
        size = norms * torch.linalg.vector_norm(call.q.float(), dim=-1, keepdim=True)
        return torch.where(size > 0, dots / size, 0.0)

    def _learn(self, prefix: list[Chunk]) -> None:
        batch, groups, _, dim = prefix[0][0].shape
        self._mean = torch.zeros(batch, groups, 1, dim, device=prefix[0][0].device)
        self._top = torch.zeros(batch, groups, 1, device=prefix[0][0].device)
        for b, g in product(range(batch), range(groups)):  # one head at a time: memory stays small
            keys = valid_keys(prefix, b, g)
            if self._stage.center == "keys" and len(keys):
                self._mean[b, g] = keys.double().mean(0)
            if self._stage.transform == "simple_lsh" and len(keys):
                norms = torch.linalg.vector_norm(keys.float() - self._mean[b, g], dim=-1)
                self._top[b, g] = norms.amax() * self._stage.headroom

    def _encode(self, keys: Tensor) -> None:
        self._sides.reserve(keys.shape[2])
        self._norms.reserve(keys.shape[2])
        for part in parts(keys, self._stage.lsh_l * self._stage.lsh_k):
            self._hash(part)

    def _hash(self, keys: Tensor) -> None:
        centred = keys.float() - self._mean
        norms = torch.linalg.vector_norm(centred, dim=-1)
        if self._stage.transform == "simple_lsh":
            last = (self._top.square() - norms.square()).clamp(min=0).sqrt()
            centred = torch.cat([centred, last[..., None]], dim=-1)
        self._sides.append(sides(centred @ self.planes(keys)).transpose(-1, -2))
        self._norms.append(norms.clamp(max=_LARGEST).to(torch.float16))

    def _cut(self, length: int) -> None:
        self._sides.truncate(length)
        self._norms.truncate(length)

    def _fork_codes(self) -> None:
        self._sides, self._norms = self._sides.fork(), self._norms.fork()

    def _take_codes(self, rows: Tensor) -> None:
        self._sides, self._norms = self._sides.take(rows), self._norms.take(rows)
        self._mean, self._top = self._mean[rows], self._top[rows]


def _found(held: Tensor, asked: Tensor, most: int) -> list[Tensor]:
    """Which keys have the sides asked [r, l, bits, 1] in more than 0, 1, ... `most` - 1 of the tables [l, bits, words].

    Each uint8 [r, words], a bit for each of eight keys.
    """
    other = held[:, 0] ^ asked[:, :, 0]
    apart = torch.empty_like(other)
    for bit in range(1, held.shape[1]):
        other |= torch.bitwise_xor(held[:, bit], asked[:, :, bit], out=apart)
    counts = [other.bitwise_not_(), *(torch.zeros_like(other[:, :1]).expand_as(other) for _ in range(most - 1))]
    while counts[0].shape[1] > 1:  # half of the tables beside the other half
        half = counts[0].shape[1] // 2
        odd = [count[:, 2 * half :] for count in counts]
        counts = _together([count[:, :half] for count in counts], [count[:, half : 2 * half] for count in counts])
        if odd[0].shape[1]:
            counts = [torch.cat(pair, dim=1) for pair in zip(counts, odd, strict=True)]
    return [count[:, 0] for count in counts]


def _together(one: list[Tensor], other: list[Tensor]) -> list[Tensor]:
    """What was found in more than 0, 1, ... tables of either half, from the same of each half."""
    both = [a | b for a, b in zip(one, other, strict=True)]
    for i, j in product(range(len(one)), repeat=2):
        if i + j + 1 < len(one):
            both[i + j + 1] = both[i + j + 1] | (one[i] & other[j])
    return both
