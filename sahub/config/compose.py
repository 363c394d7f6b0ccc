"""`builder=compose`: a stack and its search space from what the methods say of their own fields."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, Field, fields
from typing import Any, cast

from sahub.errors import ConfigError
from sahub.extensions import method, method_names

BUDGET, BUDGET_SEARCH = "${objective.budget}", "${objective.budget_search}"
HEAVY = {"of_budget": 0.4}  # heavy_size of a stage that is not the last
HEAVY_SHARES = {"of_budget": {"low": 0.2, "high": 0.8}}
Tree = dict[str, dict[str, Any]]


def composed(names: Sequence[str]) -> tuple[Tree, Tree]:
    """`stages` and `search` of a builder of these methods in this order, interpolations of the objective unresolved.

    The last stage fills up to the budget where it has a density (or a max_density); an earlier one takes a share of
    what is left of it (its `heavy_size`, or the `share` in a field's metadata). Every other field starts at its default
    and is searched in its metadata's `search`. Raises ConfigError for an unknown method, and for an order that cannot
    be.
    """
    address = f"compose=[{','.join(names)}]"
    kinds = {name: method(name, f"{address}: {name}") for name in names}
    _check_order(address, names, kinds)
    stages: Tree = {}
    search: Tree = {}
    for name, kind in kinds.items():
        found = dict(_fields(kind, last=name == names[-1]))
        stages[name] = {field: value for field, (value, _) in found.items()}
        search[name] = {field: space for field, (_, space) in found.items() if space is not None}
    return stages, search


def with_typed(address: str, made: Tree, typed: Mapping[str, Any]) -> Tree:
    """What was made with what was typed over it; a mapping changes what it names, everything else takes its place."""
    for name in typed:
        if name not in made:
            raise ConfigError(f"{address}.{name}: is not composed; stages: {', '.join(made)}")
    return {name: _merged(fields, typed.get(name, {})) for name, fields in made.items()}


def _merged(made: Any, typed: Any) -> Any:
    if not isinstance(made, Mapping) or not isinstance(typed, Mapping):
        return typed
    both = {name: _merged(made[name], value) if name in made else value for name, value in typed.items()}
    return {**made, **both}


def _check_order(address: str, names: Sequence[str], kinds: Mapping[str, type]) -> None:
    if not names:
        raise ConfigError(f"{address}: must name at least one method; methods: {', '.join(method_names())}")
    if twice := [name for name in kinds if names.count(name) > 1]:
        raise ConfigError(f"{address}: {twice[0]}: stands there twice; every method once")
    if "dense" in names and len(names) > 1:
        raise ConfigError(f"{address}: dense: keeps every key, so that other stages do nothing; must stand alone")
    for name in names[:-1]:
        if getattr(kinds[name], "samples", False):
            raise ConfigError(
                f"{address}: {name}: must be last: it draws from the keys that no stage before it keeps, and its "
                "weights stand for all of those"
            )


def _fields(kind: type, *, last: bool) -> "dict[str, tuple[Any, Any]]":
    """Field -> (value, space or None) of a stage."""
    every: dict[str, Field[Any]] = {field.name: field for field in fields(cast(Any, kind)) if field.init}
    if filling := [name for name in ("density", "max_density") if name in every and (last or name == "max_density")]:
        found: dict[str, tuple[Any, Any]] = {filling[0]: (BUDGET, BUDGET_SEARCH)}
    else:
        found = {"heavy_size": (HEAVY, HEAVY_SHARES)} if "heavy_size" in every else {}
    for name, field in every.items():
        share, space = field.metadata.get("share"), field.metadata.get("search")
        if name in found or (share is not None and filling):
            continue
        if share is not None:
            start = {key: value for key, value in share.items() if key != "search"}
            found[name] = start, {"of_budget": share["search"]}
        elif space is not None and (value := _start(field, space)) is not None:
            found[name] = value, space
    return {name: found[name] for name in every if name in found}


def _start(field: Field[Any], space: Mapping[str, Any]) -> Any:
    """A searched field's default, or the middle of its space where it has none; None where it is not used."""
    if field.default is not MISSING:
        return field.default
    if "choices" in space:
        return space["choices"][0]
    low, high = space["low"], space["high"]
    middle = math.sqrt(low * high) if space.get("log") else (low + high) / 2
    return round(middle) if isinstance(low, int) and isinstance(high, int) else float(f"{middle:.2g}")
