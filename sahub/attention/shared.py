"""Keys or values of sequences that go on from one prefix, which is held, and read, once for all of them."""

from typing import Any, TypeAlias

import torch
from torch import Tensor


class SharedPrefix:
    """[b, g, k, d] with the first `length` keys the same for all b; the others, the tails, are each sequence's own.

    memory  [1, g, n, d]: the prefix, and behind it `room` places for the tail of each sequence, of which `used` are
    """

    def __init__(self, memory: Tensor, length: int, *, batch: int, room: int, used: int) -> None:
        self.memory, self.length, self.room = memory, length, room
        self.shape = torch.Size((batch, memory.shape[1], length + used, memory.shape[3]))
        self.dtype, self.device = memory.dtype, memory.device

    def dim(self) -> int:
        """As a tensor's."""
        return 4

    def float(self) -> "SharedPrefix":
        """In fp32."""
        return self if self.dtype == torch.float32 else self._of(self.memory.float(), self.shape[2])

    def _of(self, memory: Tensor, end: int) -> "SharedPrefix":
        return SharedPrefix(memory, self.length, batch=self.shape[0], room=self.room, used=end - self.length)

    @property
    def prefix(self) -> Tensor:
        """[1, g, length, d]."""
        return self.memory[:, :, : self.length]

    @property
    def tails(self) -> Tensor:
        """[b, g, k - length, d], a view."""
        batch, used = self.shape[0], self.shape[2] - self.length
        behind = self.memory[0, :, self.length : self.length + batch * self.room]
        each: Tensor = behind.unflatten(1, (batch, self.room))
        return each[:, :, :used].transpose(0, 1)

    def __getitem__(self, at: tuple[slice, slice, slice]) -> Any:
        """Keys [:, :, begin:end]: shared too where they begin with the prefix and end in the tails; else a tensor."""
        begin, end, _ = at[2].indices(self.shape[2])
        if begin == 0 and end > self.length:
            return self._of(self.memory, end)
        prefix = self.prefix[:, :, begin:end].expand(self.shape[0], -1, -1, -1)
        if end <= self.length:
            return prefix
        tails = self.tails[:, :, max(begin - self.length, 0) : end - self.length]
        return tails if begin >= self.length else torch.cat([prefix, tails], dim=2)

    def alone(self, at: int) -> Tensor:
        """A copy of those of one sequence, [1, g, k, d]."""
        return torch.cat([self.prefix, self.tails[at, None]], dim=2)

    def whole(self) -> Tensor:
        """A tensor of their own: a copy for each sequence."""
        return torch.cat([self.prefix.expand(self.shape[0], -1, -1, -1), self.tails], dim=2)

    def dots(self, queries: Tensor) -> Tensor:
        """Products of queries [b, g, q, r, d] with every key: [b, g, q, r, k]."""
        batch, _, num, heads, _ = queries.shape
        together = queries.transpose(0, 1).flatten(1, 3) @ self.prefix[0].mT
        first = together.unflatten(1, (batch, num, heads)).transpose(0, 1)
        joined: Tensor = torch.cat([first, queries @ self.tails[:, :, None].mT], dim=-1)
        return joined

    def sums(self, shares: Tensor) -> Tensor:
        """Sums of the values, each times its share [b, g, q, r, k]: [b, g, q, r, d]."""
        batch, _, num, heads, _ = shares.shape
        first, own = shares.split([self.length, shares.shape[4] - self.length], dim=-1)
        together = first.transpose(0, 1).flatten(1, 3) @ self.prefix[0]
        whole: Tensor = together.unflatten(1, (batch, num, heads)).transpose(0, 1) + own @ self.tails[:, :, None]
        return whole


Keys: TypeAlias = Tensor | SharedPrefix


def whole(keys: Keys) -> Tensor:
    """All of them as a tensor [b, g, k, d]: a copy for each sequence, of those that share a prefix."""
    return keys if isinstance(keys, Tensor) else keys.whole()
