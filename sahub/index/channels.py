"""Files of sorted channels: for each layer and head, the channels of a key from the most to the least important."""

import hashlib
import json
import re
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import Any

from sahub.config.choices import command
from sahub.errors import ConfigError
from sahub.files.pointers import ADVICE as POINTER
from sahub.files.pointers import is_pointer

SELECTIONS = ("q_proj", "k_proj", "qk_proj")
Lists = tuple[tuple[int, ...], ...]  # one per head


class ChannelFile:
    """The lists of one selection: `layers[l][head]` is a permutation of the channels of a head, of layers it knows."""

    def __init__(self, layers: Mapping[int, Lists], digest: str) -> None:
        self.layers = layers
        self.digest = digest  # of the file

    @property
    def num_heads(self) -> int:
        """Lists of each layer."""
        return len(next(iter(self.layers.values())))

    @property
    def head_dim(self) -> int:
        """Channels of a head."""
        return len(next(iter(self.layers.values()))[0])


def read_channels(file: str, selection: str) -> ChannelFile:
    """The lists of `selection` in a JSON file: `model.layers.{i}.self_attn.{selection}` -> lists, one per head.

    Keys of other selections are ignored. Raises ConfigError, naming the file and the first key that is wrong.
    """
    path = Path(file).expanduser()
    try:
        if is_pointer(path):
            raise ConfigError(f"sorted_channel_file={file}: {POINTER}")
        state = path.stat()
        return _read(str(path), selection, state.st_mtime_ns, state.st_size)
    except OSError as error:
        raise ConfigError(
            f"sorted_channel_file={file}: cannot be read ({error.strerror}); "
            f"make one with `{command('calibrate')} model=...`"
        ) from error


@lru_cache(maxsize=8)
def _read(path: str, selection: str, changed: int, size: int) -> ChannelFile:
    del changed, size  # a file that changes is read again
    content = Path(path).read_bytes()
    try:
        tree = json.loads(content)
    except ValueError as error:
        raise ConfigError(f"sorted_channel_file={path}: is not JSON ({error})") from error
    if not isinstance(tree, dict):
        raise ConfigError(f"sorted_channel_file={path}: must be a JSON object from layer and projection to lists")
    return ChannelFile(_layers(path, selection, tree), hashlib.sha256(content).hexdigest()[:16])


def _layers(path: str, selection: str, tree: Mapping[str, Any]) -> dict[int, Lists]:
    pattern = re.compile(rf"model\.layers\.(\d+)\.self_attn\.{re.escape(selection)}")
    found = {int(match[1]): value for key, value in tree.items() if (match := pattern.fullmatch(key))}
    if not found:
        held = sorted({key.rpartition(".")[2] for key in tree})
        raise ConfigError(
            f"sorted_channel_file={path}: has no model.layers.N.self_attn.{selection} "
            f"(channel_selection={selection}); it has {', '.join(held[:8]) or 'nothing'}"
        )
    layers: dict[int, Lists] = {}
    for layer in sorted(found):
        key = f"model.layers.{layer}.self_attn.{selection}"
        lists = _lists(f"sorted_channel_file={path}: {key}", found[layer])
        first = next(iter(layers.values()), lists)
        if (len(lists), len(lists[0])) != (len(first), len(first[0])):
            raise ConfigError(
                f"sorted_channel_file={path}: {key} has {len(lists)} lists of {len(lists[0])} channels, layer "
                f"{min(layers)} has {len(first)} of {len(first[0])}"
            )
        layers[layer] = lists
    return layers


def _lists(address: str, value: object) -> Lists:
    if not isinstance(value, list) or not value or not all(isinstance(one, list) and one for one in value):
        raise ConfigError(f"{address}: must be a list of lists of channels, one per head")
    width = len(value[0])
    for head, one in enumerate(value):
        whole = all(type(channel) is int for channel in one)
        if not whole or len(one) != width or sorted(one) != list(range(width)):
            raise ConfigError(f"{address}[{head}]: must hold each channel of 0..{width - 1} once")
    return tuple(tuple(one) for one in value)


def merged_by_rank(lists: Lists, groups: int) -> Lists:
    """One list per group of consecutive heads: the channels by the sum of their ranks, the lower channel first."""
    size = len(lists) // groups
    found: list[tuple[int, ...]] = []
    for group in range(groups):
        ranks = [0] * len(lists[0])
        for one in lists[group * size : (group + 1) * size]:
            for rank, channel in enumerate(one):
                ranks[channel] += rank
        found.append(tuple(sorted(range(len(ranks)), key=lambda channel: (ranks[channel], channel))))
    return tuple(found)
