"""SnapKV: keep the keys of the prefix that the first rows after it attend to, and let that set stand."""

import copy
from collections.abc import Hashable
from dataclasses import dataclass, field
from typing import ClassVar, Self

import torch
from torch import Tensor

from sahub.choosing import Scores, Selector, choose
from sahub.errors import ConfigError
from sahub.protocols import Call, Geometry, Index, Stage
from sahub.selection import Selection
from sahub.sizes import Density, Size, is_count

POOLINGS = ("avg", "max")
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class SnapKV(Stage):
    """Attend to the keys of the prefix to which its observers, the first rows after it, gave the most attention.

    score(i, j) = pool over keys near j of (mean over observers r <= i of softmax_j(q_r.k_j * scale)), per query head.
    The observers are the `window_size` rows after the prefix: once they are over, the set stands. Keys after the prefix
    are taken before all of its keys, the most recent first.

    Source   Li et al. 2024, arXiv:2404.14469
    Differs  the observers are rows of the question: prefills are shared by all methods and leave no queries behind.
             While the question is read, each row is served by the observers up to itself. Nothing is evicted, so that
             every budget can be tried on one prefix; the keys are scored again in every step
    Memory   query heads per KV head * 16 * window_size * d / K bits per key and KV head, the observers' queries
    """

    watches: ClassVar[bool] = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    window_size: int = field(default=32, metadata={"unit": "rows", "search": {"choices": [8, 16, 32, 64]}})
    kernel_size: int = field(default=5, metadata={"unit": "keys", "search": {"choices": [1, 3, 5, 7, 13]}})
    pooling: str = field(default="avg", metadata={"search": {"choices": list(POOLINGS)}})

    def __post_init__(self) -> None:
        if not is_count(self.window_size) or self.window_size < 1:
            raise ConfigError(f"window_size={self.window_size}: must be at least 1 row")
        if not is_count(self.kernel_size) or self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size={self.kernel_size}: must be an odd number of keys")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling={self.pooling}: must be {' or '.join(POOLINGS)}")
        self.selector  # noqa: B018  (checks the budget fields)

    @property
    def selector(self) -> Selector:
        """What `density` or `heavy_size` asks for."""
        return Selector.of(density=self.density, heavy_size=self.heavy_size)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys that the observers agree on."""
        assert isinstance(index, Observers)
        start, shares = index.shares(call)
        return choose(call, taken, Scores(logits=self._ranked(start, shares)), self.selector)

    def _ranked(self, start: int, shares: Tensor) -> Tensor:
        """Logits of all keys, from the attention [b, h, q, k] that they were given."""
        known = shares[..., :start]
        if start:
            flat, half = known.flatten(0, 2)[:, None], self.kernel_size // 2
            if self.pooling == "avg":
                flat = torch.nn.functional.avg_pool1d(flat, self.kernel_size, stride=1, padding=half)
            else:
                flat = torch.nn.functional.max_pool1d(flat, self.kernel_size, stride=1, padding=half)
            known = flat[:, 0].view(known.shape)
        later = torch.arange(1, shares.shape[-1] - start + 1, device=shares.device).float()
        return torch.cat([known.clamp(min=_LEAST).log(), later.expand(*shares.shape[:3], -1)], dim=-1)

    def index_key(self) -> Hashable:
        """The observers depend on their number alone."""
        return "snapkv", self.window_size

    def new_index(self, *, layer: int, seed: int, example: int) -> "Observers":
        """No observer yet."""
        del layer, seed, example
        return Observers(self.window_size)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """The observers' queries in 16 bits a channel."""
        group = geometry.num_heads // geometry.num_kv_heads
        return group * 16 * self.window_size * geometry.head_dim / num_keys

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


class Observers:
    """The queries of the first rows after the prefix, by position."""

    def __init__(self, window_size: int) -> None:
        self.length = 0
        self._window_size = window_size
        self._ended: int | None = None  # length of the prefix
        self._queries: dict[int, Tensor] = {}  # [b, h, d]

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Keys are read when they are scored."""
        del v_new, valid_new
        self.length += k_new.shape[2]

    def freeze(self) -> None:
        """The next rows are the observers."""
        self._ended = self.length if self._ended is None else self._ended

    def observe(self, call: Call) -> None:
        """Remember the rows that are observers."""
        if self._ended is not None:
            self._queries |= {at: query.clone() for at, query in self._among(call, self._ended).items()}

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Forget the observers from `length` on."""
        del k, v, valid
        self.length = min(self.length, length)
        self._queries = {at: query for at, query in self._queries.items() if at < length}
        if self._ended is not None and length < self._ended:
            self._ended, self._queries = None, {}

    def fork(self) -> Self:
        """The same observers."""
        twin = copy.copy(self)
        twin._queries = dict(self._queries)
        return twin

    def shares(self, call: Call) -> tuple[int, Tensor]:
        """Length of the prefix, and the mean attention of each row's observers to all keys, fp32 [b, h, q, k].

        A row before the observers is its own. Before the prefix ended, it is as if it had ended before the rows.
        """
        first = call.rows.num_keys - call.rows.num_rows
        start = first if self._ended is None else self._ended
        shown = {**self._queries, **self._among(call, start)}
        places = sorted(shown)
        own = _attention(call, call.q, list(range(first, call.rows.num_keys)))
        if not places:
            return start, own
        given = _attention(call, torch.stack([shown[at] for at in places], dim=2), places)
        counts = torch.ones(1, len(places), device=call.q.device)
        if call.valid is not None:  # a row that is padding observes nothing
            counts = call.valid[:, places].float()
            given = given * counts[:, None, :, None]
        means = given.cumsum(dim=2) / counts.cumsum(dim=1).clamp(min=1)[:, None, :, None]
        several = [sum(at <= first + row for at in places) for row in range(call.rows.num_rows)]
        rows = [means[:, :, num - 1] if num else own[:, :, row] for row, num in enumerate(several)]
        return start, torch.stack(rows, dim=2)

    def _among(self, call: Call, start: int) -> dict[int, Tensor]:
        """The observers among the rows of a call."""
        first = call.rows.num_keys - call.rows.num_rows
        inside = range(max(first, start), min(call.rows.num_keys, start + self._window_size))
        return {at: call.q[:, :, at - first] for at in inside}

    @property
    def nbytes(self) -> int:
        """Bytes of the observers' queries."""
        return sum(query.nbytes for query in self._queries.values())


def _attention(call: Call, queries: Tensor, places: list[int]) -> Tensor:
    """Attention of queries [b, h, n, d] at these positions to the valid keys up to their own: fp32 [b, h, n, k]."""
    group = call.num_heads // call.num_kv_heads
    grouped = queries.float().unflatten(1, (call.num_kv_heads, group)).flatten(2, 3)
    logits = (grouped @ call.k.float().transpose(-1, -2) * call.scale).unflatten(2, (group, -1)).flatten(1, 2)
    seen = torch.arange(call.k.shape[2], device=queries.device) <= torch.tensor(places, device=queries.device)[:, None]
    seen = seen[None] if call.valid is None else seen & call.valid[:, None]
    shares: Tensor = logits.masked_fill(~seen[:, None], float("-inf")).softmax(dim=-1)
    return shares.nan_to_num(0.0)
