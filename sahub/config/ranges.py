"""The typed settings from plain values, each within the range that its field declares."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields, is_dataclass
from typing import Any, cast, get_type_hints

from sahub.errors import ConfigError, did_you_mean, listed


def typed(cls: type, values: Mapping[str, Any], address: str = "") -> Any:
    """An instance of the settings class `cls`, nested ones included, with tuples where the class has them.

    Raises ConfigError `search.num_samples=-1: must be at least 1 trials` for the first value out of its range.
    """
    hints = get_type_hints(cls)
    for name in values:
        if name not in hints:
            raise ConfigError(
                f"{address}{name}: no such key{did_you_mean(name, hints)}; must be one of {listed([*hints])}"
            )
    arguments: dict[str, Any] = {}
    for item in fields(cast(Any, cls)):
        path = f"{address}{item.name}"
        if item.name not in values:
            raise ConfigError(f"~{path}: cannot be typed away, only set")
        value = values[item.name]
        if is_dataclass(hints[item.name]):
            arguments[item.name] = typed(cast(type, hints[item.name]), value, f"{path}.")
            continue
        arguments[item.name] = tuple(value) if isinstance(value, list) else value
        for element in value if isinstance(value, list) else [value]:
            problem = "" if element is None else violation(element, item.metadata)
            if problem:
                raise ConfigError(f"{path}={shown(value)}: {problem}")
    return cls(**arguments)


def violation(value: Any, limits: Mapping[str, Any]) -> str:
    """What must hold of a value and does not; empty when everything holds."""
    if limits.get("choices") and value not in limits["choices"]:
        return f"must be one of {', '.join(limits['choices'])}"
    if limits.get("pattern") and not re.fullmatch(limits["pattern"], str(value)):
        return f"must be {limits['expected']}"
    if allowed(limits) and not within(value, limits):
        return f"must be {allowed(limits)}" + (f" ({limits['unit']})" if limits["unit"] else "")
    return ""


def shown(value: Any) -> str:
    """The value as it is typed."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {shown(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(shown, value)) + "]"
    if isinstance(value, bool):
        return str(value).lower()
    return "null" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


def within(value: Any, limits: Mapping[str, Any]) -> bool:
    """Whether a value is a number between its bounds."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    least, above, most = limits["at_least"], limits["above"], limits["at_most"]
    return (least is None or value >= least) and (above is None or value > above) and (most is None or value <= most)


def allowed(limits: Mapping[str, Any]) -> str:
    """The range of a number in words, such as `above 0 and at most 1`; empty without bounds."""
    words = (("at least", "at_least"), ("above", "above"), ("at most", "at_most"))
    return " and ".join(f"{word} {limits[name]:g}" for word, name in words if limits.get(name) is not None)


def keys(cls: type, address: str = "") -> Iterator[tuple[str, Field[Any]]]:
    """Every dotted key of the settings class with its field, in order."""
    hints = get_type_hints(cls)
    for item in fields(cast(Any, cls)):
        if is_dataclass(hints[item.name]):
            yield from keys(cast(type, hints[item.name]), f"{address}{item.name}.")
        else:
            yield f"{address}{item.name}", item


def setting(cls: type, path: str) -> Mapping[str, Any]:
    """What the schema says of a dotted key; empty where it says nothing."""
    return next((item.metadata for key, item in keys(cls) if key == path), {})


def leaves(tree: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree with its address, such as `search.num_samples`; an empty mapping is a value."""
    for name, value in tree.items():
        if isinstance(value, Mapping) and value:
            yield from leaves(value, f"{above}{name}.")
        else:
            yield f"{above}{name}", value
