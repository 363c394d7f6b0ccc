"""Double Sparsity: score keys by a few channels, and read only the keys that score well."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sahub.attention.budgets import Density, Size, is_count
from sahub.attention.call import Call, Geometry
from sahub.attention.choose import choose
from sahub.attention.selection import Selection
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError
from sahub.index.channels import SELECTIONS, ChannelFile, read_channels
from sahub.index.key_labels import Labels, channels_kept

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

    batched = True

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

    @cached_property
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
        channels_kept(geometry.head_dim, self.group_factor)
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
