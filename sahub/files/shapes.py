"""The shape of what is read from files that somebody else may have written."""

from collections.abc import Mapping
from typing import Any

ANYTHING = (None, bool, float, str, list, dict)


def fits(value: Any, shape: Any) -> bool:
    """Whether a value read from JSON has a shape.

    A type is itself (`float`: any number; no bool is a number), a tuple one of several, a list [shape] any number of
    them, {str: shape} a mapping of them, any other mapping one that has at least these keys.
    """
    if isinstance(shape, tuple):
        return any(fits(value, one) for one in shape)
    if isinstance(shape, list):
        return isinstance(value, list) and all(fits(item, shape[0]) for item in value)
    if isinstance(shape, Mapping):
        if not isinstance(value, Mapping):
            return False
        if str in shape:
            return all(fits(item, shape[str]) for item in value.values())
        return all(name in value and fits(value[name], one) for name, one in shape.items())
    if shape is None:
        return value is None
    if isinstance(value, bool):
        return shape is bool
    return isinstance(value, int | float) if shape is float else isinstance(value, shape)
