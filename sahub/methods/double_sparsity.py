"""Double Sparsity: score keys by a few channels, and read only the keys that score well."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from sahub.attention.budgets import Density, Size, is_count
from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Geometry, Scores
from sahub.attention.choose import choose
from sahub.attention.products import scored
from sahub.attention.selection import Selection
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError
from sahub.index.channels import SELECTIONS, ChannelFile, Lists, merged_by_rank, read_channels
from sahub.index.packed_bits import Planes, to_bits
from sahub.index.prefix_codes import Chunk, Coding

_LEAST_WIDTH = 1e-30  # below, steps per unit overflow fp32
_CHUNK_KEYS = 4096  # labelled at once
SHARING = ("per_head", "group")


@dataclass(frozen=True, kw_only=True)
class DoubleSparsity(Stage):
    """Attend to the keys whose label, a few channels in a few bits, has the largest product with the query's channels.

    label(k) = round((k_c - low) * step) / step + low over the c = d // group_factor first channels of the head's list,
    low and high their least and largest value, step = (2^label_bits - 1) / (high - low);  score = scale * q_c.label(k)

    sorted_channel_file  lists of channels by layer and head, as published or made by `sahub calibrate`;
                         null: the channels with the largest mean |k| over the prefix, one list per KV head
    channel_selection    which lists of the file: by |q| or |k| before the rotary embedding, or by |q * k| after it
    channel_sharing      per_head: a list and a label for every list in the file; group: the lists of the query heads
                         that share a KV head are merged by rank, so that there is one label per key

    Source   Yang et al. 2024, arXiv:2408.07092
    Differs  the query is not quantised, as it is never stored; every layer has its own channels; works without a file
    Memory   lists per KV head * (c * label_bits + [label_bits < 16] * 2 * 16) bits per key and KV head, low and high in
             the keys' own dtype (counted as 16 bits)
    """

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    select: Mapping[str, Any] | None = field(default=None, metadata={"unit": "{top_p: share} | {threshold: logit}"})
    group_factor: int = field(
        default=16, metadata={"unit": "channels per kept one", "search": {"choices": [2, 4, 8, 16]}}
    )
    label_bits: int = field(default=4, metadata={"unit": "bits a channel", "search": {"choices": [1, 2, 4, 8, 16]}})
    channel_selection: str = field(default="qk_proj", metadata={"unit": "q_proj | k_proj | qk_proj, of the file"})
    channel_sharing: str = field(default="per_head", metadata={"unit": "per_head | group"})
    sorted_channel_file: str | None = field(default=None, metadata={"unit": "JSON file"})
    group: str = field(default="none", metadata={"unit": " | ".join(GROUPS)})
    file_digest: str = field(default="", init=False)  # so that another file of the same name is another stage

    def __post_init__(self) -> None:
        if not is_count(self.group_factor) or self.group_factor < 1:
            raise ConfigError(f"group_factor={self.group_factor}: must be at least 1 channel per kept one")
        if not is_count(self.label_bits) or not 1 <= self.label_bits <= 16:
            raise ConfigError(f"label_bits={self.label_bits}: must be 1 to 16 bits a channel, 16 = not quantised")
        for name, known in (("channel_selection", SELECTIONS), ("channel_sharing", SHARING)):
            if getattr(self, name) not in known:
                raise ConfigError(f"{name}={getattr(self, name)}: must be one of {', '.join(known)}")
        self.selector  # noqa: B018  (checks the budget fields)
        found = self._file()
        if found is not None:
            object.__setattr__(self, "file_digest", found.digest)

    def _file(self) -> ChannelFile | None:
        file = self.sorted_channel_file
        return None if file is None else read_channels(file, self.channel_selection)

    @property
    def selector(self) -> Selector:
        """What the budget fields ask for."""
        return Selector.of(self.select, density=self.density, heavy_size=self.heavy_size, group=self.group)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys with the best labels."""
        assert isinstance(index, Labels)
        return choose(call, taken, index.scores(call), self.selector)

    def index_key(self) -> Hashable:
        """The labels depend on channels and bits alone."""
        lists = (self.sorted_channel_file, self.file_digest, self.channel_selection, self.channel_sharing)
        return "double_sparsity", self.group_factor, self.label_bits, lists

    def new_index(self, *, layer: int, seed: int, example: int) -> "Labels":
        """No labels yet."""
        del seed, example
        found = self._file()
        if found is not None and layer not in found.layers:
            raise ConfigError(f"sorted_channel_file={self.sorted_channel_file}: has no layer {layer}")
        lists = None if found is None else found.layers[layer]
        return Labels(self.group_factor, self.label_bits, lists, self.channel_sharing == "group")

    def check(self, geometry: Geometry) -> None:
        """Channels must divide the head, and the file must be this model's."""
        _channels(geometry.head_dim, self.group_factor)
        found = self._file()
        if found is None:
            return
        heads = geometry.num_kv_heads if self.channel_selection == "k_proj" else geometry.num_heads
        holds = tuple(found.layers), found.num_heads, found.head_dim
        if holds != (geometry.layers, heads, geometry.head_dim):
            raise ConfigError(
                f"sorted_channel_file={self.sorted_channel_file}: {self.channel_selection} is of "
                f"{geometry.layers_of(found.layers)}, {holds[1]} heads and head_dim {holds[2]}; the model has "
                f"{len(geometry.layers)} that can be sparse, {heads} and {geometry.head_dim}"
            )

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """The codes of the channels, and low and high in 16 bits each, for every list of a KV head."""
        del num_keys
        found = self._file()
        lists = 1 if found is None or self.channel_sharing == "group" else found.num_heads // geometry.num_kv_heads
        side = 2 * 16 if self.label_bits < 16 else 0
        return lists * (geometry.head_dim // self.group_factor * self.label_bits + side)

    @property
    def any_layer(self) -> bool:
        """Where the channels are learned."""
        return self.sorted_channel_file is None

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


def _channels(head_dim: int, group_factor: int) -> int:
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
        num = _channels(head_dim, self._group_factor)
        if self._lists is None:
            total = torch.zeros(keys.shape[0], groups, head_dim, dtype=torch.float64, device=keys.device)
            for chunk, valid in prefix:
                size = chunk.abs() if valid is None else chunk.abs().masked_fill(~valid[:, None, :, None], 0)
                total += size.sum(dim=2, dtype=torch.float64)
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
        for part in keys.split(_CHUNK_KEYS, dim=2):
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
        codes = ((values.float() - low.float()) * step).round().clamp(0, (1 << self._label_bits) - 1).int()
        self._codes.append(to_bits(codes.flatten(2, 3), self._label_bits))
        self._reals.append(torch.cat([low, high], dim=3).flatten(2, 3))
        self._note_read(codes / step + low.float())

    def _cut(self, length: int) -> None:
        for part in (self._codes, self._reals, self._read):
            part.truncate(length)

    def _fork_codes(self) -> None:
        self._codes, self._reals, self._read = self._codes.fork(), self._reals.fork(), self._read.fork()

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
