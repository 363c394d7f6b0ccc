"""PQCache: score keys by product codes, the nearest centroid of each of their parts."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from sahub.attention.budgets import Density, Size, is_count
from sahub.attention.call import Call, Geometry, Scores
from sahub.attention.choose import choose
from sahub.attention.selection import Selection
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError
from sahub.index.codes import Codes
from sahub.index.kmeans import Finite, kmeans, nearest, seed_of
from sahub.index.prefix_codes import Chunk, Coding, valid_keys

_KEYS_AT_ONCE = 4096  # that are encoded
METRICS = ("euclidean", "ip")


@dataclass(frozen=True, kw_only=True)
class PQCache(Stage):
    """Attend to the keys whose product code has the largest product with the query.

    A key is cut into m = pq_group_factor parts of d / m channels; each part is written as the nearest of 2^pq_bits
    centroids.  score = scale * sum over parts of q_part.centroid(part)

    metric=euclidean  nearest by distance
    metric=ip         nearest after each part is given one more channel, sqrt(phi - |part|^2) with phi the largest
                      |part|^2 of the prefix (0 for later, longer ones): distances are then products

    Source   Zhang et al. 2024, arXiv:2407.12820
    Differs  centroids are of all valid keys of the prefix, whatever sink and window keep, drawn by the seed, kept in 16
             bits, and frozen when the prefix ends; codes are of the centroids as they are kept; selects per query head,
             unless `group` says otherwise
    Memory   m * pq_bits + 16 * (d + [ip] * m) * 2^pq_bits / K bits per key and KV head
    """

    batched = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    select: Mapping[str, Any] | None = field(default=None, metadata={"unit": "{top_p: share} | {threshold: logit}"})
    pq_group_factor: int = field(default=2, metadata={"unit": "parts of a key", "search": {"choices": [2, 4, 8]}})
    pq_bits: int = field(default=6, metadata={"unit": "bits a part", "search": {"choices": [4, 6, 8]}})
    kmeans_iter: int = field(default=10, metadata={"unit": "rounds"})
    metric: str = field(default="euclidean", metadata={"search": {"choices": list(METRICS)}})
    group: str = field(default="none", metadata={"unit": " | ".join(GROUPS)})

    def __post_init__(self) -> None:
        for name, low, high, unit in (
            ("pq_group_factor", 1, None, "part of a key"),
            ("pq_bits", 1, 12, "bits a part"),
            ("kmeans_iter", 0, None, "rounds"),
        ):
            value = getattr(self, name)
            if not is_count(value) or value < low or (high is not None and value > high):
                reach = f"at least {low}" if high is None else f"{low} to {high}"
                raise ConfigError(f"{name}={value}: must be {reach} {unit}")
        if self.metric not in METRICS:
            raise ConfigError(f"metric={self.metric}: must be {' or '.join(METRICS)}")
        self.selector  # noqa: B018  (checks the budget fields)

    @cached_property
    def selector(self) -> Selector:
        """What `density`, `heavy_size` or `select` asks for."""
        return Selector.of(self.select, density=self.density, heavy_size=self.heavy_size, group=self.group)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys of the best codes."""
        assert isinstance(index, ProductCodes)
        return choose(call, taken, index.scores(call), self.selector)

    def index_key(self) -> Hashable:
        """The codes depend on everything but the budget."""
        return "pqcache", self.pq_group_factor, self.pq_bits, self.kmeans_iter, self.metric

    def new_index(self, *, layer: int, seed: int, example: int) -> "ProductCodes":
        """No centroids yet."""
        return ProductCodes(self, seed_of(seed, example, layer))

    def check(self, geometry: Geometry) -> None:
        """The parts must divide the head."""
        check_parts(geometry.head_dim, self.pq_group_factor)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """The code of each key, and its share of the centroids."""
        width = geometry.head_dim + (self.pq_group_factor if self.metric == "ip" else 0)
        return self.pq_group_factor * self.pq_bits + 16 * width * (1 << self.pq_bits) / num_keys

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


def check_parts(head_dim: int, parts: int) -> None:
    """Raise ConfigError where the parts are not equally wide."""
    if head_dim % parts:
        raise ConfigError(f"pq_group_factor={parts}: must divide head_dim={head_dim}")


class ProductCodes(Coding):
    """Centroids of the prefix, fp16 [b, g, m, 2^bits, d / m (+ 1 for ip)], and the code of each key.

    A sequence without a valid key in its prefix has no centroids: every key scores 0, and the most recent ones win.
    """

    def __init__(self, stage: PQCache, seed: int) -> None:
        super().__init__()
        self._stage, self._seed = stage, seed
        self.centroids: Tensor | None = None  # inf where there are fewer keys than codes
        self._finite: Finite  # the same in fp32, [b * g * m, 2^bits, d / m (+ 1)], as they are asked and scored
        self._largest: Tensor | None = None  # phi, fp32 [b, g, m, 1]
        self._codes = Codes(stage.pq_bits)  # [b, g, m, k]

    @property
    def codes(self) -> Tensor:
        """The centroid of each part of each key, int32 [b, g, m, k]."""
        return self._codes.data.int()

    def scores(self, call: Call) -> Scores:
        """Scaled products of the query's parts with the centroids of every key, summed in the order of the parts."""
        index = self.ready(call)
        assert index.centroids is not None
        parts = self._stage.pq_group_factor
        group = call.num_heads // call.num_kv_heads
        query = (call.q.float() * call.scale).unflatten(1, (call.num_kv_heads, group)).unflatten(-1, (parts, -1))
        centroids = index._finite.centroids.unflatten(0, index.centroids.shape[:3])[..., : query.shape[-1]]
        tables = torch.einsum("bgrqmd,bgmcd->bgmcrq", query, centroids).flatten(4, 5)
        return Scores(logits=index._codes.worth(tables).unflatten(2, (group, -1)).flatten(1, 2))

    def _learn(self, prefix: list[Chunk]) -> None:
        keys = prefix[0][0]
        batch, groups, _, head_dim = keys.shape
        parts, num = self._stage.pq_group_factor, 1 << self._stage.pq_bits
        check_parts(head_dim, parts)
        width = head_dim // parts + (self._stage.metric == "ip")
        shape = (batch, groups, parts, num, width)
        self.centroids = torch.full(shape, float("inf"), dtype=torch.float16, device=keys.device)
        self._largest = torch.zeros(batch, groups, parts, 1, device=keys.device)
        limit = torch.finfo(torch.float16).max
        for b in range(batch):  # one head at a time: what is learned depends on no other, and memory stays small
            for g in range(groups):
                points = valid_keys(prefix, b, g).float().unflatten(-1, (parts, -1)).transpose(0, 1)  # [m, n, d / m]
                if points.shape[1]:
                    self._largest[b, g] = points.square().sum(-1).amax(-1, keepdim=True)
                found = kmeans(self._widened(points, self._largest[b, g]), num, self._stage.kmeans_iter, self._seed)
                kept = found.clamp(-limit, limit).masked_fill(found.isinf(), float("inf"))
                self.centroids[b, g] = kept.half()
        self._finite = Finite.of(self.centroids.flatten(0, 2).float())

    def _encode(self, keys: Tensor) -> None:
        assert self.centroids is not None
        assert self._largest is not None
        self._codes.reserve(keys.shape[2])
        for part in keys.split(_KEYS_AT_ONCE, dim=2):
            points = part.float().unflatten(-1, (self._stage.pq_group_factor, -1)).transpose(2, 3)
            points = self._widened(points, self._largest)  # [b, g, m, n, d / m]
            self._codes.append(nearest(points.flatten(0, 2), self._finite).unflatten(0, points.shape[:3]))

    def _widened(self, points: Tensor, largest: Tensor) -> Tensor:
        """Parts [..., m, n, d / m] with the channel that makes distances products, for the metric ip."""
        if self._stage.metric == "euclidean":
            return points
        rest = (largest - points.square().sum(-1)).clamp(min=0).sqrt()
        return torch.cat([points, rest[..., None]], dim=-1)

    def _cut(self, length: int) -> None:
        self._codes.truncate(length)

    def _fork_codes(self) -> None:
        self._codes = self._codes.fork()

    def _take_codes(self, rows: Tensor) -> None:
        self._codes = self._codes.take(rows)
        assert self.centroids is not None
        assert self._largest is not None
        self.centroids, self._largest = self.centroids[rows], self._largest[rows]
        self._finite = Finite.of(self.centroids.flatten(0, 2).float())

    @property
    def code_bytes(self) -> int:
        """Bytes that codes and centroids take."""
        return self._codes.packed_bytes + (0 if self.centroids is None else self.centroids.nbytes)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        finite = 0 if self.centroids is None else sum(part.nbytes for part in self._finite)
        return self.code_bytes + self._codes.read_bytes + finite
