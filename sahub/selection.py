"""Selection: which keys each (sequence, query head, row) attends to, and with which log-weight."""

import enum
from dataclasses import dataclass, replace
from typing import Self

import torch
from torch import Tensor

from sahub.errors import SahubError
from sahub.rows import Rows

_EMPTY = float("-inf")


class Kind(enum.Enum):
    """NONE: nothing chosen yet; ALL: every valid key; PARTIAL: the keys in `indices`."""

    NONE = "none"
    ALL = "all"
    PARTIAL = "partial"


@dataclass(frozen=True, eq=False)
class Selection:
    """Key positions with log-weights; NONE and ALL are explicit and store no tensor.

    indices     int64 [b, h, q, s], each key at most once per row; the head axis may be a stride-0 view
    log_weight  fp32 [b, h, q, s]: -inf = empty slot (its index means nothing), 0 = kept, -log p = sampled
    """

    kind: Kind
    rows: Rows
    num_heads: int
    num_kv_heads: int
    indices: Tensor
    log_weight: Tensor

    @classmethod
    def none(cls, rows: Rows, num_heads: int, num_kv_heads: int) -> Self:
        """Nothing selected yet. Attending to it raises."""
        empty = torch.empty(rows.batch, num_heads, rows.num_rows, 0, device=rows.device)
        return cls(Kind.NONE, rows, num_heads, num_kv_heads, empty.long(), empty)

    def all(self) -> "Selection":
        """Every valid key of the same rows."""
        empty = Selection.none(self.rows, self.num_heads, self.num_kv_heads)
        return replace(empty, kind=Kind.ALL)

    def of(self, indices: Tensor, log_weight: Tensor) -> "Selection":
        """These keys of the same rows: int64 and fp32 [1 or b, 1 or h, 1 or q, s], broadcast without a copy."""
        shape = (self.rows.batch, self.num_heads, self.rows.num_rows, max(indices.shape[-1], log_weight.shape[-1]))
        return replace(
            self, kind=Kind.PARTIAL, indices=indices.expand(shape), log_weight=log_weight.float().expand(shape)
        )

    def kept(self) -> Tensor:
        """bool [b, h, q, s]: slots that hold a key."""
        return self.log_weight > _EMPTY

    def counts(self) -> Tensor:
        """Number of keys of each row, int64 [b, h, q]."""
        if self.kind is Kind.ALL:
            return self.rows.counts[:, None].expand(self.rows.batch, self.num_heads, self.rows.num_rows)
        return self.kept().sum(-1)

    def then(self, other: "Selection") -> "Selection":
        """Both selections together. A key in both keeps 1 - (1-p)(1-p'): one that is certain in either is certain."""
        if self.kind is Kind.ALL or other.kind is Kind.NONE:
            return self
        if other.kind is Kind.ALL or self.kind is Kind.NONE:
            return other
        first, second = _same_heads(self, other)
        indices = torch.cat([first[0], second[0]], dim=-1)
        weight = torch.cat([first[1], second[1]], dim=-1)
        slots = torch.where(weight > _EMPTY, indices, self.rows.num_keys)  # empty slots sort to the end
        slots, order = slots.sort(dim=-1)
        weight = weight.gather(-1, order)
        used = slots < self.rows.num_keys
        twice = (slots[..., 1:] == slots[..., :-1]) & used[..., 1:]
        merged = _either(weight[..., :-1], weight[..., 1:])
        weight = torch.cat([torch.where(twice, merged, weight[..., :-1]), weight[..., -1:]], dim=-1)
        weight[..., 1:].masked_fill_(twice, _EMPTY)
        return self.of(slots.where(used, 0), weight)._trimmed(used)

    def _trimmed(self, used: Tensor) -> "Selection":
        """Without the trailing slots that no row uses: where reading a number costs nothing, that is on the CPU."""
        if used.device.type != "cpu":
            return self
        width = int(used.sum(-1).max()) if used.numel() else 0
        return replace(self, indices=self.indices[..., :width], log_weight=self.log_weight[..., :width])

    def probabilities(self) -> Tensor:
        """Inclusion probability of every key, dense fp32 [b, h, q, k]: 0 dropped, 1 kept, p sampled. For tests."""
        shape = (self.rows.batch, self.num_heads, self.rows.num_rows, self.rows.num_keys)
        if self.kind is Kind.ALL:
            visible = self.rows.visible()
            ones = torch.ones(shape, device=self.rows.device)
            return ones if visible is None else ones * visible[:, None]
        dense = torch.zeros(shape, device=self.rows.device)
        chance = torch.where(self.kept(), torch.exp(-self.log_weight), 0.0)
        return dense.scatter_reduce_(-1, self.indices, chance, "amax")

    def density(self) -> Tensor:
        """Share of the valid keys that are kept, mean over rows with a valid key (b, h, q): fp64 scalar tensor."""
        return self._mean_share(self.counts())

    def kv_density(self) -> Tensor:
        """Share of the valid keys that a KV head loads for all its query heads, mean over (b, g, q): fp64 scalar."""
        group = self.num_heads // self.num_kv_heads
        if self.kind is not Kind.PARTIAL or group == 1 or is_shared(self.indices, self.log_weight):
            return self.density()
        slots = torch.where(self.kept(), self.indices, self.rows.num_keys)
        slots = slots.unflatten(1, (self.num_kv_heads, group)).transpose(2, 3).flatten(3).sort(dim=-1).values
        fresh = torch.ones_like(slots, dtype=torch.bool)
        fresh[..., 1:] = slots[..., 1:] != slots[..., :-1]
        return self._mean_share((fresh & (slots < self.rows.num_keys)).sum(-1))

    def _mean_share(self, counts: Tensor) -> Tensor:
        valid = self.rows.counts[:, None].expand(self.rows.batch, counts.shape[1], -1)
        share = counts.double() / valid.clamp(min=1)
        return share.sum() / (valid > 0).sum().clamp(min=1)

    def check(self) -> Self:
        """Raise SahubError if a row with a valid key has nothing selected. Waits for the device: once per request."""
        bare = (self.counts() == 0) & (self.rows.counts > 0)[:, None]
        if bool(bare.any()):
            raise SahubError(
                f"{int(bare.sum())} of {bare.numel()} rows have valid keys and nothing selected: the stack needs "
                "a stage that always keeps a key (sink_size, window_size or density above 0)"
            )
        return self


def is_shared(*tensors: Tensor) -> bool:
    """Whether the head axis of every tensor is a broadcast view, so that head 0 speaks for all."""
    return all(tensor.shape[1] == 1 or tensor.stride(1) == 0 for tensor in tensors)


def _same_heads(first: Selection, second: Selection) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Indices and weights of both, with one head only when both are the same for every head."""
    heads = 1 if is_shared(first.indices, first.log_weight, second.indices, second.log_weight) else first.num_heads
    return (
        (first.indices[:, :heads], first.log_weight[:, :heads]),
        (second.indices[:, :heads], second.log_weight[:, :heads]),
    )


def _either(first: Tensor, second: Tensor) -> Tensor:
    """Log-weight of a key drawn by both of two independent stages."""
    certain = (first <= 0) | (second <= 0)
    missed = torch.expm1(-first) * torch.expm1(-second)  # (1-p)(1-p')
    return torch.where(certain, 0.0, -torch.log1p(-missed))
