"""Selection: which keys each (sequence, query head, row) attends to, and with which log-weight."""

import enum
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from sahub.attention.rows import Rows, free_to_read
from sahub.compiled.present import at_hand
from sahub.errors import SahubError

_EMPTY = float("-inf")


class Kind(enum.Enum):
    """NONE: nothing chosen yet; ALL: every valid key; PARTIAL: the keys in `indices`."""

    NONE = "none"
    ALL = "all"
    PARTIAL = "partial"


@dataclass(frozen=True, eq=False)
class Selection:
    """Key positions with log-weights; NONE and ALL are explicit and store no slots.

    slots    int64 [b, u, q, s]: key positions, each at most once per row; u = h, or g where the query heads of a KV
             head chose together, or 1 where all did
    weights  fp32, same shape: -inf = empty slot (its position means nothing), 0 = kept, -log p = sampled
    apart    whether what was taken before has none of these keys
    """

    kind: Kind
    rows: Rows
    num_heads: int
    num_kv_heads: int
    slots: Tensor
    weights: Tensor
    apart: bool = False

    @classmethod
    def none(cls, rows: Rows, num_heads: int, num_kv_heads: int) -> "Selection":
        """Nothing selected yet. Attending to it raises."""
        empty = torch.empty(rows.batch, 1, rows.num_rows, 0, device=rows.device)
        return cls(Kind.NONE, rows, num_heads, num_kv_heads, empty.long(), empty)

    @classmethod
    def same(cls, rows: Rows, num_heads: int, num_kv_heads: int, slots: Tensor) -> "Selection":
        """The keys at `slots`, int64 [s], for every sequence, head and row: kept, each once."""
        weights = torch.zeros(1, 1, 1, len(slots), device=slots.device)
        shape = rows.batch, 1, rows.num_rows, -1
        return cls(
            Kind.PARTIAL, rows, num_heads, num_kv_heads, slots[None, None, None].expand(shape), weights.expand(shape)
        )

    def all(self) -> "Selection":
        """Every valid key of the same rows."""
        return replace(Selection.none(self.rows, self.num_heads, self.num_kv_heads), kind=Kind.ALL)

    def of(self, slots: Tensor, weights: Tensor, *, apart: bool = False) -> "Selection":
        """These keys of the same rows; axes [b, h, q] of size 1 are broadcast, the heads only in name."""
        shapes = slots.shape, weights.shape, (self.rows.batch, 1, self.rows.num_rows, 1)
        axes = zip(*((*[1] * (4 - len(shape)), *shape) for shape in shapes), strict=True)
        shape = [next((size for size in axis if size != 1), 1) for axis in axes]  # torch's own takes 0.3 ms
        slots, weights = slots.expand(shape), weights.float().expand(shape)
        return replace(self, kind=Kind.PARTIAL, slots=slots, weights=weights, apart=apart)

    def beside(self, slots: Tensor, weights: Tensor) -> "Selection":
        """These keys of the same rows, none of which is kept for certain here."""
        return self.of(slots, weights, apart=self._is_certain)

    @property
    def indices(self) -> Tensor:
        """Key positions for every head, int64 [b, h, q, s]."""
        return spread(self.slots, self.num_heads)

    @property
    def log_weight(self) -> Tensor:
        """Log-weights for every head, fp32 [b, h, q, s]."""
        return spread(self.weights, self.num_heads)

    def num_kept(self) -> Tensor:
        """Number of keys of each row, int64 [b or 1, u, q]."""
        return self._kept

    @cached_property
    def _kept(self) -> Tensor:
        return self.rows.counts[:, None] if self.kind is Kind.ALL else (self.weights > _EMPTY).sum(-1)

    @cached_property
    def _is_certain(self) -> bool:
        """Whether no key is known to be kept by chance."""
        return free_to_read(self.weights) and not bool((self.weights > 0).any())

    def counts(self) -> Tensor:
        """Number of keys of each row, int64 [b, h, q]."""
        return spread(self.num_kept(), self.num_heads).expand(self.rows.batch, -1, -1)

    def then(self, other: "Selection") -> "Selection":
        """Both selections together. A key in both keeps 1 - (1-p)(1-p'): one that is certain in either is certain."""
        if self.kind is Kind.ALL or other.kind is Kind.NONE:
            return self
        if other.kind is Kind.ALL or self.kind is Kind.NONE:
            return replace(other, apart=False) if other.apart else other
        num_keys, heads = self.rows.num_keys, max(self.slots.shape[1], other.slots.shape[1])
        slots, weights = (
            torch.cat([spread(x, heads) for x in pair], dim=-1)
            for pair in ((self.slots, other.slots), (self.weights, other.weights))
        )
        if other.apart:
            return replace(self, slots=slots, weights=weights)
        slots, order = slots.masked_fill_(weights == _EMPTY, num_keys).sort(dim=-1)  # empty slots go to the end
        weights = weights.gather(-1, order)
        twice = slots[..., 1:] == slots[..., :-1]
        if not free_to_read(twice) or bool(twice.any()):
            slots, weights = _merged(slots, weights, twice, num_keys)
        return replace(self, slots=slots.clamp_(max=num_keys - 1), weights=weights)

    def probabilities(self) -> Tensor:
        """Inclusion probability of every key, dense fp32 [b, h, q, k]: 0 dropped, 1 kept, p sampled. For tests."""
        shape = (self.rows.batch, self.num_heads, self.rows.num_rows, self.rows.num_keys)
        if self.kind is Kind.ALL:
            visible = self.rows.visible()
            ones = torch.ones(shape, device=self.rows.device)
            return ones if visible is None else ones * visible[:, None]
        dense = torch.zeros(shape, device=self.rows.device)
        chance = torch.where(self.log_weight > _EMPTY, torch.exp(-self.log_weight), 0.0)
        return dense.scatter_reduce_(-1, self.indices, chance, "amax")

    def dense_log_weight(self, part: slice, out: float) -> Tensor:
        """Log-weight of every key for some rows of a PARTIAL one, dense fp32 [b, u, rows, k]; `out`: not kept."""
        slots, weights, num_keys = self.slots[:, :, part], self.weights[:, :, part], self.rows.num_keys
        dense = torch.full((*slots.shape[:3], num_keys + 1), out, device=slots.device)
        return dense.scatter_(-1, torch.where(weights > _EMPTY, slots, num_keys), weights)[..., :-1]

    def density(self) -> Tensor:
        """Share of the valid keys that are kept, mean over rows with a valid key (b, h, q): fp64 scalar tensor."""
        return self._mean_share(self.num_kept())

    def kv_density(self) -> Tensor:
        """Share of the valid keys that a KV head loads for all its query heads, mean over (b, g, q): fp64 scalar."""
        return self._mean_share(self.kv_counts())

    def kv_counts(self) -> Tensor:
        """Number of keys that a KV head loads for all its query heads, int64 [b or 1, g or 1, q]."""
        heads = self.slots.shape[1]
        if self.kind is not Kind.PARTIAL or heads in (1, self.num_kv_heads):
            return self.num_kept()
        if free_to_read(self.slots) and at_hand():
            return self._counted()
        slots = torch.where(self.weights > _EMPTY, self.slots, self.rows.num_keys)
        slots = slots.unflatten(1, (self.num_kv_heads, -1)).transpose(2, 3).flatten(3)
        loaded = torch.zeros(*slots.shape[:3], self.rows.num_keys + 1, dtype=torch.bool, device=slots.device)
        return loaded.scatter_(-1, slots, True)[..., :-1].sum(-1)

    def _counted(self) -> Tensor:
        from sahub.compiled.counting import counting  # takes a second to import

        out = self.slots.new_empty(self.slots.shape[0], self.num_kv_heads, self.slots.shape[2])
        marks = torch.zeros(self.rows.num_keys, dtype=torch.int64)
        if not counting()(self.slots.numpy(), self.weights.numpy(), marks.numpy(), out.numpy()):
            raise IndexError(f"a selection holds positions outside the {self.rows.num_keys} keys")
        return out

    def _mean_share(self, counts: Tensor) -> Tensor:
        valid = self.rows.counts[:, None]
        if self.rows.mask is None:
            return (counts / valid.double()).mean()
        share = counts.double() / valid.clamp(min=1)
        return share.sum() / ((valid > 0).sum() * share.shape[1]).clamp(min=1)

    def bare(self) -> Tensor:
        """Rows with a valid key and nothing selected: bool [b, h, q]."""
        return (self.counts() == 0) & (self.rows.counts > 0)[:, None]

    def check(self) -> Self:
        """Raise SahubError if a row with a valid key has nothing selected. Waits for the device: once per request."""
        bare = self.bare()
        if bool(bare.any()):
            raise SahubError(
                f"{int(bare.sum())} of {bare.numel()} rows have valid keys and nothing selected: the stack needs "
                "a stage that always keeps a key (sink_size, window_size or density above 0)"
            )
        return self


def spread(x: Tensor, heads: int) -> Tensor:
    """x [b, u, ...] for every head: [b, heads, ...], u heads standing for heads / u each."""
    if x.shape[1] in (1, heads):
        return x.expand(-1, heads, *x.shape[2:])
    return x.repeat_interleave(heads // x.shape[1], dim=1)


def _merged(slots: Tensor, weights: Tensor, twice: Tensor, num_keys: int) -> tuple[Tensor, Tensor]:
    """One slot for each key of sorted `slots` (num_keys = empty); where reading is free, no end that no row uses."""
    used = slots < num_keys
    twice = twice & used[..., 1:]
    is_certain = free_to_read(weights) and not bool((weights > 0).any())
    both = 0.0 if is_certain else _either(weights[..., :-1], weights[..., 1:])
    joined = torch.where(twice, both, weights[..., :-1])
    weights = torch.cat([joined, weights[..., -1:]], dim=-1)
    weights[..., 1:].masked_fill_(twice, _EMPTY)
    if not free_to_read(slots):
        return slots, weights
    width = int(used.sum(-1).max()) if used.numel() else 0
    return slots[..., :width], weights[..., :width]


def _either(first: Tensor, second: Tensor) -> Tensor:
    """Log-weight of a key drawn by both of two independent stages."""
    certain = (first <= 0) | (second <= 0)
    missed = torch.expm1(-first) * torch.expm1(-second)  # (1-p)(1-p')
    return torch.where(certain, 0.0, -torch.log1p(-missed))
