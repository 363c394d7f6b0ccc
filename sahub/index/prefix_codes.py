"""Indexes that learn from the prefix how to write keys down: channels, centroids. Base of their states."""

import copy
from typing import Self

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.attention.shared import whole

Chunk = tuple[Tensor, Tensor | None]  # keys [b, g, n, d], validity [b, n]


class Coding:
    """Keys as codes. Until the prefix ends, keys wait (as views: nobody may write to them); then all are encoded.

    Subclasses say what they learn of the prefix, how they encode a chunk, and how they forget and fork codes. What a
    code says depends on its key and on what was learned, never on the chunks that keys came in.
    """

    def __init__(self) -> None:
        self.length = 0
        self._ended: int | None = None  # length of the prefix
        self._waiting: list[Chunk] = []
        self._knows = False

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """See Index."""
        del v_new
        self.length += k_new.shape[2]
        if self._ended is None:
            self._waiting.append((k_new, valid_new))
            return
        if not self._knows:  # the prefix was empty
            self._learn_from([(k_new[:, :, :0], None)])
        self._encode(k_new)

    def freeze(self) -> None:
        """See Index."""
        if self._ended is not None:
            return
        self._ended = self.length
        if self._waiting:
            self._learn_from(self._waiting)
            for keys, _ in self._waiting:
                self._encode(keys)
        self._waiting = []

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """See Index. Inside the prefix, the prefix has not ended yet."""
        del v
        if length >= self.length:
            return
        self.length = length
        if self._ended is not None and length >= self._ended:
            self._cut(length)
            return
        self._cut(0)
        self._ended, self._knows = None, False
        self._waiting = [(k[:, :, :length], None if valid is None else valid[:, :length])] if length else []

    def fork(self) -> Self:
        """See Index."""
        twin = copy.copy(self)
        twin._waiting = list(self._waiting)
        twin._fork_codes()
        return twin

    def take(self, rows: Tensor) -> Self:
        """See Index. The prefix has ended."""
        assert self._ended is not None
        twin = copy.copy(self)
        twin._take_codes(rows)
        return twin

    def ready(self, call: Call) -> Self:
        """The index to score a call with: before the prefix ended, as if it had ended before the call's rows."""
        if self._ended is not None:
            return self
        twin = self.fork()
        twin.truncate(0, whole(call.k), whole(call.v), call.valid)
        prefix = call.rows.num_keys - call.rows.num_rows
        for part in (slice(prefix), slice(prefix, None)):
            twin.append(call.k[:, :, part], call.v[:, :, part], None if call.valid is None else call.valid[:, part])
            twin.freeze()
        return twin

    def _learn_from(self, prefix: list[Chunk]) -> None:
        self._learn(prefix)
        self._knows = True

    def _learn(self, prefix: list[Chunk]) -> None:
        raise NotImplementedError

    def _encode(self, keys: Tensor) -> None:
        raise NotImplementedError

    def _cut(self, length: int) -> None:
        raise NotImplementedError

    def _fork_codes(self) -> None:
        raise NotImplementedError

    def _take_codes(self, rows: Tensor) -> None:
        raise NotImplementedError


def valid_keys(prefix: list[Chunk], b: int, g: int) -> Tensor:
    """The keys [n, d] of a KV head of a sequence that are no padding."""
    return torch.cat([keys[b, g] if valid is None else keys[b, g][valid[b]] for keys, valid in prefix])
