"""Codes of keys, and what tables say that each code is worth."""

from typing import Self

import torch
from torch import Tensor

from sahub.attention.buffers import Growing
from sahub.attention.rows import free_to_read
from sahub.compiled.parallel import over_units
from sahub.compiled.present import LANES, at_hand
from sahub.index.packed_bits import Planes, to_bits

MOST_BITS = 15  # of a code


class Codes:
    """t whole numbers of a few bits for every key, [b, g, t, k] with k growing: packed, and as a step reads them."""

    def __init__(self, bits: int) -> None:
        self._bits = bits
        self._packed = Planes()
        self._read = Growing(axis=3)  # int16

    @property
    def data(self) -> Tensor:
        """All of them, int16; read only."""
        return self._read.data

    @property
    def packed_bytes(self) -> int:
        """Bytes that they take as they are packed."""
        return self._packed.nbytes

    @property
    def read_bytes(self) -> int:
        """Bytes that they take beside that, as a step reads them."""
        return self._read.data.nbytes if self._read.length else 0

    def reserve(self, num: int) -> None:
        """So many more keys will come, in parts."""
        self._packed.reserve(num)
        self._read.reserve(num)

    def append(self, codes: Tensor) -> None:
        """Those of n more keys: whole numbers [b, g, t, n]."""
        self._packed.append(to_bits(codes, self._bits))
        self._read.append(codes.to(torch.int16))

    def truncate(self, length: int) -> None:
        """Forget the keys from `length` on."""
        self._packed.truncate(length)
        self._read.truncate(length)

    def fork(self) -> Self:
        """The same codes; whoever writes first copies."""
        twin = type(self)(self._bits)
        twin._packed, twin._read = self._packed.fork(), self._read.fork()
        return twin

    def take(self, rows: Tensor) -> Self:
        """A copy of some sequences, int64 [n]."""
        twin = type(self)(self._bits)
        twin._packed, twin._read = self._packed.take(rows), self._read.take(rows)
        return twin

    def worth(self, high: Tensor, low: Tensor | None = None) -> Tensor:
        """What each key's codes are worth together to each row: fp32 [b, g, r, k], added up in the tables' order.

        high, low  fp32 [b, g, t, c, r] and [b, g, t, n, r], c * n = 2^bits: code i of a table is worth
                   high[i // n] * low[i % n]; without `low`, high[i]
        """
        if free_to_read(high) and at_hand():
            return self._looked_up(high, high.new_ones(*high.shape[:3], 1, high.shape[4]) if low is None else low)
        total = high.new_zeros(*high.shape[:2], self._read.length, high.shape[4])
        for t, codes in enumerate(self._read.data.unbind(2)):
            table = high[:, :, t]
            if low is not None:
                table = (table[:, :, :, None] * low[:, :, t, None]).flatten(2, 3)
            total += table.gather(2, codes[..., None].long().expand_as(total))
        return total.mT.contiguous()

    def _looked_up(self, high: Tensor, low: Tensor) -> Tensor:
        """The same by a compiled loop."""
        from sahub.compiled.scoring import looking_up  # takes a second to import

        rows = high.shape[4]
        high, low = (torch.nn.functional.pad(x, (0, max(0, LANES - rows))).contiguous() for x in (high, low))
        out = high.new_empty(*high.shape[:2], high.shape[4], self._read.length)
        given = high.numpy(), low.numpy(), self._read.memory.numpy().view("u2"), out.numpy()
        over_units(looking_up(), high.shape[0] * high.shape[1], high.shape[2] * out.numel(), *given)
        return out[:, :, :rows]
