"""One attention call of a model, and the sums over many calls."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from sahub.attention.attend import attend
from sahub.attention.rows import free_to_read, rows_of
from sahub.attention.selection import Selection


@dataclass(frozen=True)
class Inputs:
    """One attention call of a model: query [B, Hq, Q, D], key and value [B, Hkv, K, D], mask bool [B, 1, Q, K]."""

    query: Tensor
    key: Tensor
    value: Tensor
    mask: Tensor | None
    scale: float
    positions: Tensor | None = None
    softcap: float | None = None  # of the logits, where the layer has one
    sinks: Tensor | None = None  # learned logits [Hq] of the layer's softmax

    def dense(self) -> Tensor:
        """Attention to every valid key."""
        rows = rows_of(self.query, self.key, self.mask)
        return self.sparse(Selection.none(rows, self.query.shape[1], self.key.shape[1]).all())

    @property
    def formula(self) -> dict[str, Any]:
        """What a selection depends on beside queries, keys and values."""
        return {"mask": self.mask, "scale": self.scale, "softcap": self.softcap}

    def sparse(self, selection: Selection) -> Tensor:
        """Attention to the selected keys."""
        return attend(self.query, self.key, self.value, selection, **self.formula, sinks=self.sinks)


def by_sequence(selection: Selection) -> Tensor:
    """What the rows of each sequence keep, fp64 [b, 4]: means of density, kv_density and keys; rows that keep none."""
    kept, valid = selection.num_kept(), selection.rows.counts[:, None].double()
    bare = ((kept == 0) & (valid > 0)).double().sum((1, 2))
    means = ((kept / valid), (selection.kv_counts() / valid), kept.double())
    each = [*(one.mean((1, 2)) for one in means), bare]
    return torch.stack([one.expand(selection.rows.batch) for one in each], dim=-1)


@dataclass
class Tally:
    """Sums of one layer in one phase, kept on the device until the request ends.

    `density` and `kv_density` are weighted by rows; `error` and `norm` are sums of squares over all rows and heads,
    `elements` the numbers that each of them is a sum over.
    """

    calls: int = 0
    rows: int = 0
    density: Tensor | float = 0.0
    kv_density: Tensor | float = 0.0
    selected: Tensor | float = 0.0
    bare: Tensor | float = 0.0  # rows with valid keys and nothing selected
    error: Tensor | float = 0.0
    norm: Tensor | float = 0.0
    elements: int = 0
    mass_lost: Tensor | float = 0.0  # in a replay: sums over rows, means over heads
    top1_missed: Tensor | float = 0.0
    worst_top1_missed: float = 0.0  # the largest of a row and head

    def add_selection(self, selection: Selection, rows: int) -> None:
        """Count what one call's rows keep."""
        self.calls += 1
        self.rows += rows
        selected: Tensor | float
        if selection.rows.single is not None and free_to_read(selection.weights):  # tensors of one number are slow
            kept, loaded = (one.flatten().tolist() for one in (selection.num_kept(), selection.kv_counts()))
            selected = sum(kept) / len(kept)
            self.density += selected / selection.rows.single * rows
            self.kv_density += sum(loaded) / len(loaded) / selection.rows.single * rows
            self.bare += kept.count(0) * selection.num_heads // selection.num_kept().shape[1]
        else:
            selected = selection.num_kept().double().mean()
            self.density = self.density + selection.density() * rows
            self.kv_density = self.kv_density + selection.kv_density() * rows
            self.bare = self.bare + selection.bare().sum()
        self.selected = self.selected + selected * rows

    def add_error(self, output: Tensor, dense: Tensor) -> None:
        """Add what an output differs from the dense one, both [b, q, h, dv]."""
        dense = dense.float()
        self.error = self.error + (output.float() - dense).square().sum()
        self.norm = self.norm + dense.square().sum()
        self.elements += dense.numel()

    def add_rows(self, numbers: Mapping[str, Sequence[float]], width: int) -> None:
        """Add what a replay says of some rows, by the names of the sums; `width`: elements of a row's output."""
        self.calls += 1
        self.rows += len(numbers["density"])
        self.worst_top1_missed = max(self.worst_top1_missed, *numbers["worst_top1_missed"])
        for name in numbers.keys() - {"worst_top1_missed"}:
            setattr(self, name, getattr(self, name) + sum(numbers[name]))
        if "error" in numbers:
            self.elements += width * len(numbers["error"])

    def summary(self) -> dict[str, float | int | None]:
        """Plain numbers: means per row, sums of squares, and e where it was measured."""
        error, norm = float(self.error), float(self.norm)
        return {
            "rows": self.rows,
            "density": float(self.density) / self.rows,
            "kv_density": float(self.kv_density) / self.rows,
            "selected": float(self.selected) / self.rows,
            "error": error,
            "norm": norm,
            "elements": self.elements,
            "e": math.sqrt(error / norm) if norm else None,
        }
