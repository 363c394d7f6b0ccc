"""Budgets that differ by layer: a size or a density of a stage may be a list with one value per layer of the model."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, replace
from functools import cache
from typing import Any, TypeVar, get_args, get_type_hints

from sahub.attention.budgets import Density, Size, for_layer, is_list
from sahub.attention.stage import Stage
from sahub.errors import ConfigError

S = TypeVar("S", bound=Stage)


def lists_of(stage: Stage) -> Iterator[tuple[str, Sequence[Any]]]:
    """(field, values) of every list with one value per layer; `select.density` for one inside a mapping."""
    kind: Any = type(stage)
    for name in _listable(kind):
        value = getattr(stage, name)
        inside = [(f"{name}.{key}", one) for key, one in value.items()] if isinstance(value, Mapping) else []
        yield from ((address, one) for address, one in [(name, value), *inside] if is_list(one))


def read_geometry(stages: Sequence[Stage]) -> bool:
    """Whether checking the stages needs a model's geometry."""
    return any(type(stage).check is not Stage.check or any(lists_of(stage)) for stage in stages)


def check(stage: Stage, num_layers: int) -> None:
    """Raise ConfigError for a list that has not one value per layer."""
    for name, values in lists_of(stage):
        if len(values) != num_layers:
            raise ConfigError(
                f"{name}={list(values)}: has {len(values)} values; must be one value, or a list of {num_layers}, one "
                "per layer of the model (those of layers that stay dense are not read)"
            )


def at(stage: S, layer: int) -> S:
    """The stage with the values of one layer in place of lists. Raises ConfigError where a list has none for it."""
    changed = {}
    for name, values in lists_of(stage):
        if layer >= len(values):
            raise ConfigError(f"{name}={list(values)}: has no value for layer {layer}")
        field = name.partition(".")[0]
        changed[field] = for_layer(getattr(stage, field), layer)
    return replace(stage, **changed) if changed else stage


@cache
def _listable(kind: Any) -> tuple[str, ...]:
    """The fields of a method that are declared as sizes or densities, and `select`, which may hold one."""
    lists = {*get_args(Size), *get_args(Density)} - {int, float, Mapping[str, Any]}
    hints = get_type_hints(kind)
    return tuple(f.name for f in fields(kind) if f.name == "select" or {*get_args(hints[f.name])} & lists)
