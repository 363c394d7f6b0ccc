"""The free numbers of a builder: its search tree as distributions, points as the overrides a person would type."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sahub.builders.conditions import Condition, fitting, look_up, ordered
from sahub.config.grammar import written
from sahub.errors import ConfigError

LEAF_KEYS = {"choices", "low", "high", "log", "step"}
CONDITIONS = {"when", "in_budget"}  # of a leaf, beside its distribution
Point = dict[str, Any]  # leaf address, such as quest.page_size -> value


@dataclass(frozen=True)
class Space:
    """Free leaves by address below `builder.stages`, each after those that its condition asks about.

    values      the builder's own values of the free leaves
    conditions  leaf -> other free leaf -> the values of that one with which the leaf applies
    """

    free: dict[str, BaseDistribution]
    values: Point
    conditions: dict[str, Condition] = field(default_factory=dict)

    @property
    def default(self) -> Point:
        """The builder's own values of the leaves that apply with them."""
        return self.applying(self.values)

    def applies(self, leaf: str, point: Mapping[str, Any]) -> bool:
        """Whether the leaf's condition holds at a point; leaves that do not stand in it have the builder's values."""
        asked = self.conditions.get(leaf, {})
        return all(point.get(other, self.values[other]) in allowed for other, allowed in asked.items())

    def applying(self, point: Mapping[str, Any]) -> Point:
        """The point without the leaves that do not apply: points that differ only in those are one."""
        kept: Point = {}
        for leaf in self.free:
            if leaf in point and self.applies(leaf, kept):
                kept[leaf] = point[leaf]
        return kept

    def reaching(self, leaf: str, value: Any) -> Point:
        """The default point with `leaf` at a value, and with what makes the leaf apply."""
        wanted = {leaf: value}
        for one in reversed(list(self.free)):
            for other, allowed in self.conditions.get(one, {}).items() if one in wanted else ():
                if wanted.get(other, self.values[other]) not in allowed:
                    wanted[other] = allowed[0]
        return self.applying({**self.values, **wanted})

    def points(self, most: int | None = None) -> list[Point] | None:
        """All points; None where a range is continuous, or where there are more than `most`."""
        columns = {leaf: values_of(distribution) for leaf, distribution in self.free.items()}
        finite = {leaf: column for leaf, column in columns.items() if column is not None}
        if len(finite) < len(columns):
            return None
        found = list(islice(self.combinations(finite), None if most is None else most + 1))
        return None if most is not None and len(found) > most else found

    def combinations(self, columns: Mapping[str, Sequence[Any]]) -> Iterator[Point]:
        """Every point with values from these columns, the last leaf changing fastest."""
        return self._below(list(columns.items()), {})

    def _below(self, columns: Sequence[tuple[str, Sequence[Any]]], point: Point) -> Iterator[Point]:
        if not columns:
            yield point
            return
        leaf, column = columns[0]
        for step in ({leaf: value} for value in column) if self.applies(leaf, point) else ({},):
            yield from self._below(columns[1:], {**point, **step})


def space_of(
    builder: Mapping[str, Any], is_pinned: Any = lambda leaf: False, budget_tokens: int | None = None
) -> Space:
    """The space that `builder.search` spans over `builder.stages`, less the leaves that `is_pinned`.

    budget_tokens  the keys that a budget holds, for leaves with `in_budget` (None: any number)

    Raises ConfigError for a leaf that is no distribution or that has no counterpart in `stages`, and for a condition
    on what is not there.
    """
    free: dict[str, BaseDistribution] = {}
    values: Point = {}
    whens: dict[str, Any] = {}
    fits: dict[str, BaseDistribution] = {}
    for leaf, settings in leaves(builder.get("search") or {}):
        if is_pinned(leaf):
            continue
        address = f"builder.search.{leaf}"
        free[leaf] = distribution(address, {name: value for name, value in settings.items() if name not in CONDITIONS})
        values[leaf] = look_up(builder["stages"], leaf, address)
        whens[leaf] = settings.get("when", {})
        if "in_budget" in settings:
            fits[leaf] = fitting(address, settings, budget_tokens)
    conditions = ordered(whens, {leaf: values_of(one) for leaf, one in free.items()}, values, builder["stages"])
    free |= fits
    return Space({leaf: free[leaf] for leaf in conditions}, {leaf: values[leaf] for leaf in conditions}, conditions)


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
        known = ", ".join(sorted({*LEAF_KEYS, *CONDITIONS}))
        raise ConfigError(f"{address}.{min(unknown)}: unknown; a distribution has {known}")
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
    return tuple(f"builder.stages.{leaf}={written(rounded(value))}" for leaf, value in point.items())


def values_of(distribution: BaseDistribution) -> Sequence[Any] | None:
    """The values that a distribution has, None for a continuous range."""
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return range(distribution.low, distribution.high + 1, distribution.step)
    if isinstance(distribution, FloatDistribution) and distribution.step:
        count = math.floor((distribution.high - distribution.low) / distribution.step + 1e-9) + 1
        return [distribution.low + i * distribution.step for i in range(count)]
    return None
