"""Codes of keys, and what tables say that each code is worth."""

from typing import Self

import torch
from torch import Tensor

from sahub.attention.buffers import Growing
from sahub.attention.rows import free_to_read
from sahub.compiled.present import at_hand
from sahub.index.packed_bits import Planes, to_bits

MOST_BITS = 15  # of a code
_MOST_VALUES = 1 << 22  # of tables that are made at once: 16 MB


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

    def worth(self, tables: Tensor) -> Tensor:
        """What each key's codes are worth together to each row: fp32 [b, g, r, k].

        tables  fp32 [b, g, t, r, c], c = 2^bits: what each code of a table is worth; added up in the tables' order
        """
        if free_to_read(tables) and at_hand():
            from sahub.compiled.scoring import looking_up  # takes a second to import

            out = tables.new_empty(*tables.shape[:2], tables.shape[3], self._read.length)
            looking_up()(tables.contiguous().numpy(), self._read.memory.numpy().view("u2"), out.numpy())
            return out
        total = tables.new_zeros(*tables.shape[:2], tables.shape[3], self._read.length)
        for table, codes in zip(tables.unbind(2), self._read.data.unbind(2), strict=True):
            total += table.gather(-1, codes[:, :, None].long().expand(-1, -1, total.shape[2], -1))
        return total


def rows_at_once(values_of_a_row: int) -> int:
    """How many rows have tables of so many values in memory at a time."""
    return max(1, _MOST_VALUES // values_of_a_row)
