"""How a key of the configuration is declared: default, unit, range and one line of help."""

from collections.abc import Sequence
from dataclasses import MISSING, field
from typing import Any


def key(
    default: Any = MISSING,
    help: str = "",
    *,
    unit: str = "",
    at_least: float | None = None,
    above: float | None = None,
    at_most: float | None = None,
    choices: Sequence[str] = (),
    pattern: str = "",
    expected: str = "",
) -> Any:
    """A field with what `--help` says of it and what must hold of its value; null is legal where the type allows it."""
    limits = {"at_least": at_least, "above": above, "at_most": at_most, "choices": tuple(choices)}
    metadata = {"help": help, "unit": unit, "pattern": pattern, "expected": expected, **limits}
    if isinstance(default, dict):
        return field(default_factory=default.copy, metadata=metadata)
    return field(default=default, metadata=metadata)
