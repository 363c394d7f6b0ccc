"""The builder's part of a composed configuration: stages, search and limits as plain values."""

import copy
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sahub.config.compose import composed, with_typed
from sahub.config.ranges import setting
from sahub.config.settings import Settings
from sahub.errors import ConfigError


def builder_of(root: DictConfig) -> dict[str, Any]:
    """The builder's subtree as plain values; a search leaf that is null is not free and is left out."""
    tree = cast(dict[str, Any], resolved(_with_composed(root), "builder"))
    if root.get("space") == "grid":
        objective = resolved(root, "objective")
        tree["search"] = grid_at(tree["grid"], objective["density"] or objective["budget"])
    return {**tree, "search": _without_nulls(tree["search"])}


def grid_at(grid: Mapping[Any, Any], target: float) -> dict[str, Any]:
    """A builder's `grid` as a search tree: lists are choices; of lists by target in % the nearest one's."""
    found: dict[str, Any] = {}
    for name, node in grid.items():
        if isinstance(node, Mapping) and node and all(isinstance(key, int) for key in node):
            node = node[min(node, key=lambda percent: abs(math.log(percent / 100 / target)))]
        if isinstance(node, list | tuple):
            found[name] = {"choices": list(node)}
        else:
            found[name] = grid_at(node, target) if isinstance(node, Mapping) and not is_leaf(node) else node
    return found


def is_leaf(node: Mapping[Any, Any]) -> bool:
    """Whether a node of a search tree is a distribution."""
    return bool({"choices", "low", "high"} & node.keys())


def check_space(space: str, typed: Sequence[str]) -> None:
    """Raise ConfigError for a typed range of the space that is not searched."""
    unread = {"grid": "builder.search", "continuous": "builder.grid"}[space]
    for item in typed:
        if item.lstrip("+~").startswith(unread):
            raise ConfigError(f"{item}: space={space} does not read {unread}")


def _without_nulls(tree: dict[str, Any]) -> dict[str, Any]:
    kept = {
        name: _without_nulls(node) if isinstance(node, dict) and name != "when" else node  # it may ask for null
        for name, node in tree.items()
    }
    return {name: node for name, node in kept.items() if node is not None and node != {}}


def _with_composed(root: DictConfig) -> DictConfig:
    """The root with the stages and the space of `compose`, and what was typed over them."""
    if not root.get("compose"):
        return root
    made = dict(zip(("stages", "search"), composed(list(root.compose)), strict=True))
    whole = copy.deepcopy(root)
    for part, tree in made.items():
        typed = cast(dict[str, Any], OmegaConf.to_container(whole.builder[part], resolve=False))
        full = with_typed(f"builder.{part}", tree, typed)
        OmegaConf.update(whole, f"builder.{part}", full, merge=False, force_add=True)
    return whole


def check_compose(cfg: DictConfig, builder: str) -> None:
    """Raise ConfigError where `compose` and the builder do not belong together."""
    if builder == "compose" and not cfg.compose:
        raise ConfigError("compose=[]: builder=compose needs the methods of the stack, such as [sink,local,magic_pig]")
    if cfg.compose and builder != "compose":
        raise ConfigError(f"compose=[{','.join(cfg.compose)}]: only builder=compose reads it, not builder={builder}")


def resolved(root: DictConfig, name: str) -> Any:
    """The section as plain values."""
    node = root._get_node(name)
    if not OmegaConf.is_config(node):
        return root[name]
    try:
        for path in _missing(node, name):
            raise ConfigError(f"{path}: must be given ({setting(Settings, path).get('help', 'it has no default')})")
        return OmegaConf.to_container(node, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"{error.full_key or name}: {str(error).splitlines()[0]}") from error


def _missing(node: Any, address: str) -> Iterator[str]:
    if isinstance(node, DictConfig):
        for name in map(str, node):
            path = f"{address}.{name}"
            if OmegaConf.is_missing(node, name):
                yield path
            else:
                yield from _missing(node._get_node(name), path)
