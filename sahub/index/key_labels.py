"""Labels of keys: a few channels in a few bits each."""

from itertools import product

import torch
from torch import Tensor

from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Scores
from sahub.attention.products import scored
from sahub.errors import ConfigError
from sahub.index.channels import Lists, merged_by_rank
from sahub.index.packed_bits import Planes, parts, to_bits
from sahub.index.prefix_codes import Chunk, Coding, valid_keys

_LEAST_WIDTH = 1e-30  # below, steps per unit overflow fp32


def channels_kept(head_dim: int, group_factor: int) -> int:
    """How many channels of a head a label has. Raises ConfigError where the factor does not divide them."""
    if head_dim % group_factor:
        raise ConfigError(f"group_factor={group_factor}: must divide head_dim={head_dim}")
    return head_dim // group_factor


class Labels(Coding):
    """Chosen channels of every key: codes in `label_bits` with low and high, or the values themselves at 16 bits.

    Channels int64 [b or 1, g, l, c] for l lists per KV head; given, or learned from the prefix.
    """

    def __init__(self, group_factor: int, label_bits: int, lists: Lists | None, shared: bool) -> None:
        super().__init__()
        self._group_factor, self._label_bits = group_factor, label_bits
        self._lists, self._shared = lists, shared
        self._chosen: Tensor | None = None
        self._codes = Planes()
        self._reals = Growing(axis=3)  # keys' dtype: low and high [b, g, l * 2, k], or values [b, g, l * c, k]
        self._read = Growing(axis=3)  # fp32 [b, g, l * c, k]: the labels as a step reads them, where that is not so
        self._longest: Tensor | None = None  # fp32 [b, g * l]: a bound of their lengths
        if lists is not None:
            self.freeze()

    def scores(self, call: Call) -> Scores:
        """Scaled products of the query's channels with every label."""
        index = self.ready(call)
        labels, chosen = index._labels(), index._chosen
        assert chosen is not None
        group, lists = call.num_heads // call.num_kv_heads, chosen.shape[2]
        if lists not in (1, group):
            raise ConfigError(f"sorted_channel_file: {lists} lists per KV head for {group} query heads")
        grouped = call.q.float().unflatten(1, (call.num_kv_heads, group))  # [b, g, r, q, d]
        at = chosen[:, :, :, None].expand(grouped.shape[0], -1, group, grouped.shape[3], -1)
        query = grouped.gather(-1, at) * call.scale
        if lists > 1:  # a label for each head
            query, labels = query.flatten(1, 2)[:, :, None], labels.flatten(1, 2)[:, :, None]
        logits, exact = scored(query, labels[:, :, 0].mT, longest=index._longest)
        return Scores(logits=logits, exact=exact)

    def _labels(self) -> Tensor:
        """What is known of every key, as a step reads it: fp32 [b, g, l, c, k]."""
        assert self._chosen is not None
        labels: Tensor = (self._read if self._read.length else self._reals).data
        return labels.view(*labels.shape[:2], *self._chosen.shape[2:], -1)

    def _note_read(self, labels: Tensor) -> None:
        """Keep the labels fp32 [b, g, l, c, n] of n more keys as a step reads them."""
        if self._label_bits < 16 or self._reals.data.dtype != torch.float32:
            self._read.append(labels.flatten(2, 3))
        longest = torch.nn.functional.pad(torch.linalg.vector_norm(labels, dim=3), (0, 1)).amax(-1).flatten(1)
        self._longest = longest if self._longest is None else self._longest.maximum(longest)

    def _learn(self, prefix: list[Chunk]) -> None:
        keys = prefix[0][0]
        groups, head_dim = keys.shape[1], keys.shape[3]
        num = channels_kept(head_dim, self._group_factor)
        if self._lists is None:
            total = torch.zeros(keys.shape[0], groups, head_dim, dtype=torch.float64, device=keys.device)
            for b, g in product(range(len(keys)), range(groups)):  # one head at a time: memory stays small
                total[b, g] = valid_keys(prefix, b, g).abs().sum(dim=0, dtype=torch.float64)
            order = total.argsort(dim=-1, descending=True, stable=True)
            self._chosen = order[:, :, None, :num]
            return
        if len(self._lists) % groups or len(self._lists[0]) != head_dim:
            raise ConfigError(
                f"sorted_channel_file: {len(self._lists)} lists of {len(self._lists[0])} channels, for {groups} KV "
                f"heads of {head_dim}"
            )
        lists = merged_by_rank(self._lists, groups) if self._shared else self._lists
        self._chosen = torch.tensor(lists, device=keys.device).unflatten(0, (groups, -1))[None, ..., :num]

    def _encode(self, keys: Tensor) -> None:
        assert self._chosen is not None
        for growing in (self._codes, self._reals, self._read):
            growing.reserve(keys.shape[2])
        for part in parts(keys, self._chosen[0, 0].numel() * (1 if self._label_bits == 16 else self._label_bits)):
            self._label(part)

    def _label(self, keys: Tensor) -> None:
        assert self._chosen is not None
        lists, num = self._chosen.shape[2:]
        at = self._chosen.flatten(2)[:, :, None].expand(*keys.shape[:3], -1)
        values = keys.gather(-1, at).transpose(2, 3).unflatten(2, (lists, num))  # [b, g, l, c, k]
        if self._label_bits == 16:
            self._reals.append(values.flatten(2, 3))
            self._note_read(values.float())
            return
        low, high = values.amin(dim=3, keepdim=True), values.amax(dim=3, keepdim=True)
        step = _step(low.float(), high.float(), self._label_bits)
        codes = ((values.float() - low.float()) * step).round().clamp(0, (1 << self._label_bits) - 1).to(torch.int16)
        self._codes.append(to_bits(codes.flatten(2, 3), self._label_bits))
        self._reals.append(torch.cat([low, high], dim=3).flatten(2, 3))
        self._note_read(codes / step + low.float())

    def _cut(self, length: int) -> None:
        for part in (self._codes, self._reals, self._read):
            part.truncate(length)

    def _fork_codes(self) -> None:
        self._codes, self._reals, self._read = self._codes.fork(), self._reals.fork(), self._read.fork()

    def _take_codes(self, rows: Tensor) -> None:
        self._codes, self._reals, self._read = self._codes.take(rows), self._reals.take(rows), self._read.take(rows)
        self._longest = None if self._longest is None else self._longest[rows]
        if self._lists is None and self._chosen is not None:  # those of a file are the same for all
            self._chosen = self._chosen[rows]

    @property
    def code_bytes(self) -> int:
        """Bytes that the labels of the keys take."""
        return self._codes.nbytes + (self._reals.data.nbytes if self.length else 0)

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self.code_bytes + (self._read.data.nbytes if self._read.length else 0)


def _step(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Steps per unit of a label that reaches from low to high; 1 where they are equal, or too close to tell apart."""
    return torch.where(high - low < _LEAST_WIDTH, 1.0, ((1 << bits) - 1) / (high - low))
