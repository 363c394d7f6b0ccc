"""Vectors in half their bytes, for a first look: products that are a little off, and by how much at most."""

import math
from typing import Self

import torch
from torch import Tensor

from sahub.attention.buffers import Growing
from sahub.attention.products import ROUNDING, Exact, of_single_rows, product
from sahub.attention.table import Table
from sahub.compiled.parallel import over_units
from sahub.compiled.present import LANES

_STEPS = (1 << 16) - 1  # from the least channel of a vector to the largest
_HALF = 0.51  # a step, as it is rounded


class Coarse:
    """Vectors fp32 [b, g, m, w] with m growing, in 16 bits a channel beside the least channel and the step of each."""

    def __init__(self) -> None:
        self._codes, self._reals = Growing(axis=2), Growing(axis=2)  # int16 [b, g, m, w]; fp32 [b, g, m, 2]
        self._off: Tensor | None = None  # fp32 [b, g]: by how much a product with a row of absolute sum 1 may be off

    @property
    def length(self) -> int:
        """How many vectors."""
        return self._codes.length

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return sum(part.data.nbytes for part in (self._codes, self._reals) if part.length)

    def append(self, vectors: Tensor) -> None:
        """Take some more."""
        low, high = vectors.aminmax(dim=-1, keepdim=True)
        step = ((high - low) / _STEPS).clamp(min=torch.finfo(torch.float32).tiny)
        codes = (vectors - low).div_(step).round_().clamp_(0, _STEPS)
        self._codes.append(codes.int().to(torch.int16))
        self._reals.append(torch.cat([low, step], dim=-1))
        off = (_HALF * step + _rounding(vectors.shape[-1]) * (low.abs() + high.abs() + high - low)).amax((2, 3))
        self._off = off if self._off is None else self._off.maximum(off)

    def truncate(self, length: int) -> None:
        """Forget the vectors from `length` on."""
        for part in (self._codes, self._reals):
            part.truncate(length)

    def fork(self) -> Self:
        """The same; whoever writes first copies."""
        twin = type(self)()
        twin._codes, twin._reals, twin._off = self._codes.fork(), self._reals.fork(), self._off
        return twin

    def take(self, rows: Tensor) -> Self:
        """A copy of some sequences, int64 [n]."""
        twin = type(self)()
        twin._codes, twin._reals = self._codes.take(rows), self._reals.take(rows)
        twin._off = None if self._off is None else self._off[rows]
        return twin

    def products(self, rows: Tensor, vectors: Tensor, last: Tensor | None) -> tuple[Tensor, Exact] | None:
        """Products of rows fp32 [b, g, r, 1, w] with the vectors and, behind them, `last` fp32 [b, g, 1, w].

        fp32 [b, g * r, 1, m or m + 1] by a compiled loop, and what settles their order, for which the vectors
        themselves are given, [b, g, m, w]; None where it cannot be told how far they are off.
        """
        from sahub.compiled.multiplying import glancing, settling  # takes a second to import

        assert self._off is not None
        num, behind = rows.shape[2], (vectors[:, :, :0] if last is None else last).contiguous()
        asked = rows[:, :, :, 0].contiguous()
        padded = torch.nn.functional.pad(asked, (0, 0, 0, -num % LANES)) if num % LANES else asked
        out = torch.empty(*padded.shape[:3], vectors.shape[2] + behind.shape[2])
        slack = torch.empty(padded.shape[:3])
        known = self._codes.memory.numpy().view("u2"), self._reals.memory.numpy(), behind.numpy(), self._off.numpy()
        given = padded.numpy(), *known, _rounding(rows.shape[4]), out.numpy(), slack.numpy()
        over_units(glancing(), rows.shape[0] * rows.shape[1], rows.numel() * out.shape[3], *given)
        if not math.isfinite(float(slack.amax())):
            return None
        memory, place = Table(vectors).as_numpy()

        def at(row: Tensor, unit: Tensor) -> Tensor:
            found = torch.empty(row.shape[0])
            settling()(asked.numpy(), memory, place, behind.numpy(), row.numpy(), unit.numpy(), found.numpy())
            return found

        def every() -> Tensor:
            found = of_single_rows(rows, vectors, last)
            if found is None:
                found = product(asked, torch.cat([vectors, behind], dim=2).mT).flatten(1, 2)[:, :, None]
            return found

        nearly, off = (part[:, :, :num].flatten(1, 2)[:, :, None] for part in (out, slack[..., None]))
        return nearly, Exact(slack=off, at=at, every=every)


def _rounding(width: int) -> float:
    """Of a sum of so many products in fp32, in any order, relative to the sum of their absolute values."""
    return (width + 8) * ROUNDING
