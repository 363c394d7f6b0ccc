"""The free numbers of a builder: its search tree as distributions, points as the overrides a person would type."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sahub.errors import ConfigError

LEAF_KEYS = {"choices", "low", "high", "log", "step"}
Point = dict[str, Any]  # leaf address, such as quest.page_size -> value


@dataclass(frozen=True)
class Space:
    """Free leaves by address below `builder.stages`, and the builder's own values of them."""

    free: dict[str, BaseDistribution]
    default: Point

    def points(self) -> list[Point] | None:
        """All points where their number is finite, else None."""
        columns = [_values(distribution) for distribution in self.free.values()]
        if any(column is None for column in columns):
            return None
        return [dict(zip(self.free, row, strict=True)) for row in product(*(column or [] for column in columns))]


def space_of(builder: Mapping[str, Any], is_pinned: Any = lambda leaf: False) -> Space:
    """The space that `builder.search` spans over `builder.stages`, less the leaves that `is_pinned`.

    Raises ConfigError for a leaf that is no distribution or that has no counterpart in `stages`.
    """
    free: dict[str, BaseDistribution] = {}
    default: Point = {}
    for leaf, settings in leaves(builder.get("search") or {}):
        if is_pinned(leaf):
            continue
        free[leaf] = distribution(f"builder.search.{leaf}", settings)
        default[leaf] = _look_up(builder["stages"], leaf)
    return Space(free, default)


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Mapping[str, Any]]]:
    """(address, settings) of every distribution in a search tree."""
    for name, node in tree.items():
        address = f"{above}{name}"
        if node is None:  # a range that the objective leaves out
            continue
        if not isinstance(node, Mapping):
            raise ConfigError(f"builder.search.{address}={node}: must be a mapping with choices, or with low and high")
        if LEAF_KEYS & node.keys():
            yield address, node
        else:
            yield from leaves(node, f"{address}.")


def distribution(address: str, settings: Mapping[str, Any]) -> BaseDistribution:
    """`{choices: [...]}` or `{low, high, log, step}`: whole numbers give integers, others floats."""
    unknown = settings.keys() - LEAF_KEYS
    if unknown:
        raise ConfigError(f"{address}.{min(unknown)}: unknown; a distribution has {', '.join(sorted(LEAF_KEYS))}")
    if "choices" in settings:
        if not settings["choices"] or len(settings) > 1:
            raise ConfigError(f"{address}.choices={settings['choices']}: must be a list with at least one value, alone")
        return CategoricalDistribution(list(settings["choices"]))
    if not {"low", "high"} <= settings.keys():
        raise ConfigError(f"{address}: must have choices, or both low and high")
    low, high, log, step = (settings.get(name) for name in ("low", "high", "log", "step"))
    try:
        if isinstance(low, int) and isinstance(high, int):
            return IntDistribution(low, high, log=bool(log), step=1 if step is None else step)
        return FloatDistribution(float(low), float(high), log=bool(log), step=step)  # type: ignore[arg-type]
    except (ValueError, TypeError) as error:
        raise ConfigError(f"{address}={dict(settings)}: {error}") from None


def extremes(distribution: BaseDistribution) -> Sequence[Any]:
    """Every choice, or both ends of a range."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    return [distribution.low, distribution.high]


def rounded(value: Any) -> Any:
    """Floats to four significant digits: short to read and to paste, and the same value everywhere."""
    return float(f"{value:.4g}") if isinstance(value, float) else value


def overrides_of(point: Mapping[str, Any]) -> tuple[str, ...]:
    """The point as overrides, `builder.stages.quest.page_size=32`, in the order of the space."""
    return tuple(f"builder.stages.{leaf}={_text(rounded(value))}" for leaf, value in point.items())


def _look_up(stages: Mapping[str, Any], leaf: str) -> Any:
    node: Any = stages
    for name in leaf.split("."):
        if not isinstance(node, Mapping) or name not in node:
            raise ConfigError(f"builder.search.{leaf}: builder.stages has no {leaf}, so there is nothing to search")
        node = node[name]
    return node


def _values(distribution: BaseDistribution) -> Sequence[Any] | None:
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step:
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
        return [distribution.low + i * distribution.step for i in range(count)]
    return None


def _text(value: Any) -> str:
    if isinstance(value, bool) or value is None:
        return {True: "true", False: "false", None: "null"}[value]
    return repr(value) if isinstance(value, float) else str(value)
