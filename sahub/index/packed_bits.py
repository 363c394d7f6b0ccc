"""Codes of a few bits per key, packed: eight keys share a byte, so that nothing is lost to rounding."""

from typing import Self

import torch
from torch import Tensor

from sahub.attention.buffers import Growing

_NUMBERS, _AWAY = 1 << 19, 1 << 24  # that are held at once before they are bits: for a core's cache, and elsewhere


class Planes:
    """bool [b, g, n, k] with k growing: n bits of each key, held as uint8 [b, g, n, k / 8]."""

    def __init__(self) -> None:
        self.length = 0
        self._bytes = Growing(axis=3)

    def reserve(self, num: int) -> None:
        """So many more keys will come, in parts."""
        self._bytes.reserve(-(-num // 8))

    def append(self, bits: Tensor) -> None:
        """Take the bits [b, g, n, k] (bool, or 0 and 1) of k more keys."""
        start, end = self.length, self.length + bits.shape[3]
        if end == start:
            return
        padded = torch.nn.functional.pad(bits.to(torch.uint8), (start % 8, -end % 8)).unflatten(3, (-1, 8))
        packed = (padded << _places(8, bits)).sum(-1, dtype=torch.uint8)
        self._bytes.grow(-(-end // 8), packed)[..., start // 8 :].bitwise_or_(packed)
        self.length = end

    @property
    def memory(self) -> Tensor:
        """uint8 [b, g, n, k / 8 rounded up, or more]: bit i of byte j is key 8 j + i. Read only."""
        return self._bytes.memory

    def bits(self, part: slice = slice(None)) -> Tensor:
        """The bits of all keys, or a part of each key's: uint8 [b, g, part of n, k]."""
        packed = self._bytes.data[:, :, part]
        return ((packed[..., None] >> _places(8, packed)) & 1).flatten(3)[..., : self.length]

    def truncate(self, length: int) -> None:
        """Forget the keys from `length` on."""
        if length >= self.length:
            return
        self.length = length
        self._bytes.truncate(-(-length // 8))
        if length % 8:
            last = self._bytes.grow(self._bytes.length, self._bytes.data)[..., -1]
            last.bitwise_and_((1 << length % 8) - 1)

    def take(self, rows: Tensor) -> Self:
        """A copy of some sequences, int64 [n]."""
        twin = type(self)()
        twin.length, twin._bytes = self.length, self._bytes.take(rows)
        return twin

    def fork(self) -> Self:
        """The same bits; whoever writes first copies."""
        twin = type(self)()
        twin.length, twin._bytes = self.length, self._bytes.fork()
        return twin

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self._bytes.data.nbytes if self.length else 0


def parts(keys: Tensor, numbers: int) -> tuple[Tensor, ...]:
    """Keys [b, g, k, d] in parts of which no more is held at once; so many numbers of a key of a head become bits."""
    size = (_NUMBERS if keys.device.type == "cpu" else _AWAY) // max(1, keys.shape[0] * keys.shape[1] * numbers)
    found: tuple[Tensor, ...] = keys.split(max(8, size // 8 * 8), dim=2)  # bits of eight keys share a byte
    return found


def to_bits(codes: Tensor, width: int) -> Tensor:
    """The bits of whole numbers [..., c, k], each number's lowest first: uint8 [..., c * width, k]."""
    places = torch.arange(width, dtype=codes.dtype, device=codes.device)[:, None]
    return ((codes.unsqueeze(-2) >> places) & 1).to(torch.uint8).flatten(-3, -2)


def pack(codes: Tensor, width: int) -> Tensor:
    """Whole numbers [..., n] below 2 ** width side by side: uint8 [..., n * width / 8 rounded up]."""
    if 8 % width == 0:  # none of them is in two bytes
        each, count = codes.to(torch.uint8), 8 // width
    else:
        bits = (codes.unsqueeze(-1) >> torch.arange(width, dtype=codes.dtype, device=codes.device)) & 1
        each, count, width = bits.flatten(-2).to(torch.uint8), 8, 1
    padded = torch.nn.functional.pad(each, (0, -each.shape[-1] % count)).unflatten(-1, (-1, count))
    places = torch.arange(0, 8, width, dtype=torch.uint8, device=codes.device)
    packed: Tensor = (padded << places).sum(-1, dtype=torch.uint8)
    return packed


def unpack(packed: Tensor, width: int, num: int) -> Tensor:
    """The `num` whole numbers of `pack`: int32 [..., num]."""
    if 8 % width == 0:  # none of them is in two bytes
        each = packed.unsqueeze(-1) >> torch.arange(0, 8, width, dtype=torch.uint8, device=packed.device)
        whole: Tensor = (each & (2**width - 1)).flatten(-2)[..., :num].int()
        return whole
    bits = ((packed.unsqueeze(-1) >> _places(8, packed)) & 1).flatten(-2)[..., : num * width].unflatten(-1, (num, -1))
    codes: Tensor = (bits.int() << torch.arange(width, dtype=torch.int32, device=packed.device)).sum(-1)
    return codes.int()


def _places(num: int, like: Tensor) -> Tensor:
    return torch.arange(num, dtype=torch.uint8, device=like.device)
