"""Values in the grammar of Hydra's overrides: whatever sahub writes, Hydra reads as it was."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, Quote, QuotedString
from hydra.errors import HydraException

from sahub.errors import ConfigError

PLAIN = re.compile(r"[A-Za-z_/][A-Za-z0-9_./:-]*")  # texts that need no quotes
WORDS = frozenset({"null", "true", "false", "inf", "nan"})  # which mean something else
PART = re.compile(r"[A-Za-z_$][A-Za-z0-9_$-]*")  # of a dotted key
SIGN = re.compile(r"[\\()\[\]{}:=, \t]")  # in the key of a mapping, where nothing can be quoted


def written(value: Any) -> str:
    """The value as it stands after `key=`. Raises ConfigError for a mapping with a key that the grammar cannot say."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return int.__repr__(value)
    if isinstance(value, float):
        return float.__repr__(value)
    if isinstance(value, Mapping):
        return "{" + ",".join(f"{_key(key)}:{written(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ",".join(map(written, value)) + "]"
    text = str(value)
    plain = PLAIN.fullmatch(text) and text.lower() not in WORDS
    return text if plain else QuotedString(text=text, quote=Quote.double).with_quotes()


def addressed(tree: Mapping[Any, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Every value of a tree with its address, as far as dotted keys reach; what lies deeper stays together."""
    for name, value in tree.items():
        inside = isinstance(value, Mapping) and value and all(is_part(key) for key in value)
        yield from addressed(value, f"{above}{name}.") if inside else [(f"{above}{name}", value)]


def is_part(key: Any) -> bool:
    """Whether a key can stand between the dots of an override's key."""
    return isinstance(key, str) and PART.fullmatch(key) is not None


def parsed(text: str) -> Override:
    """An override as Hydra reads it. Raises ConfigError for what is none, or is more than one value."""
    try:
        [found] = OverridesParser.create().parse_overrides([text])
    except HydraException as error:
        raise ConfigError(f"{one_line(text)}: is not of the form key=value") from error
    if found.is_sweep_override():
        raise ConfigError(f"{one_line(text)}: must be one value, not a sweep")
    return found


def one_line(text: str) -> str:
    """The text for a message: line breaks, and whatever else does not print, as escapes."""
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)


def quoted(text: str) -> str | None:
    """The override with its value in quotes, where that makes one of what is none."""
    key, equals, value = text.partition("=")
    candidate = f"{key}={QuotedString(text=value, quote=Quote.double).with_quotes()}"
    try:
        parsed(candidate)
    except ConfigError:
        return None
    return candidate if equals else None


def _key(key: Any) -> str:
    if not isinstance(key, str):
        return written(key)
    if PART.fullmatch(key) and "$" not in key and key.lower() not in WORDS:
        return key
    said = SIGN.sub(r"\\\g<0>", key)
    try:
        [found] = parsed(f"key={{{said}:0}}").value()
    except (ConfigError, ValueError):
        found = None
    if found != key or not isinstance(found, str):
        raise ConfigError(f"{key!r}: cannot be a key of a mapping in an override; write it in a file of --config-dir")
    return said
