"""What a best file may say. Somebody else may have written it: it sets a configuration, and lets nobody in.

It chooses among the files of configuration groups, sets stages, protocol, data and the numbers of search and
validation. What would run code, write elsewhere, or speak to another machine is typed by a person or not at all.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from sahub.config.grammar import parsed
from sahub.errors import ConfigError

CHOICES = ("model", "task", "builder", "objective", "sampler", "scheduler", "compute", "protocol")
SECTIONS = ("search", "sampler", "scheduler", "validate", "protocol", "task", "builder", "objective")
KEYS = (
    "space", "compose", "compute.threads", "model.name", "model.path", "model.revision", "model.device", "model.dtype",
    "model.attn_implementation", "model.max_context_length",
)  # fmt: skip
OF_THE_MACHINE = ("cache_dir", "compute")  # what a winner need not be found with again
CHOICE = re.compile(r"\w[\w.-]*(/\w[\w.-]*)*")
REFERENCE = re.compile(r"\$\{[\w.]+\}")  # to another key; a resolver reads the environment, or makes folders


@lru_cache(maxsize=4096)  # the files of a sweep say the same again and again
def refusal(override: str) -> str:
    """Why a best file must not hold an override; empty where it may."""
    try:
        found = parsed(override)
    except ConfigError as error:
        return str(error).removeprefix(f"{override}: ")
    key, value = found.key_or_group, None if found.is_delete() else found.value()
    section, _, below = key.partition(".")
    if found.package is not None or not (key in CHOICES or key in KEYS or (section in SECTIONS and below)):
        return "a best file must not set it; type it yourself"
    if any(_is_code(part) for part in (key, *_texts(value))):
        return "a best file must not name code; type it yourself, or choose an objective file of your own"
    if key in CHOICES and (found.is_delete() or not isinstance(value, str) or not CHOICE.fullmatch(value)):
        return f"must be the name of a file in the configuration group {key}"
    if any("${" in REFERENCE.sub("", part) for part in _texts(value)):
        return "a best file must not use a resolver; ${section.key} is what it may refer to"
    return ""


def allowed(overrides: Sequence[str]) -> list[str]:
    """Those that a best file may hold."""
    return [item for item in overrides if not refusal(item)]


def to_type(overrides: Sequence[str]) -> list[str]:
    """Those that it must not, and that whoever validates it has to type: not what is of the machine alone."""
    return [item for item in overrides if refusal(item) and _section(item) not in OF_THE_MACHINE]


def check(file: str, content: Any, typed: Sequence[str] = ()) -> list[str]:
    """The overrides of a best file. Raises ConfigError for one that it must not hold, and for what is to be typed.

    `typed`: the keys that the person has typed.
    """
    overrides = content.get("overrides") if isinstance(content, Mapping) else None
    if not isinstance(overrides, list) or not all(isinstance(item, str) for item in overrides):
        raise ConfigError(f"{file}: is no best file; overrides must be a list of key=value")
    for item in overrides:
        if why := refusal(item):
            raise ConfigError(f"{file}: {item}: {why}")
    lacking = content.get("to_type", [])
    for item in lacking if isinstance(lacking, list) else []:
        if str(item).lstrip("+~").partition("=")[0] not in typed:
            raise ConfigError(f"{file}: was found with {item}, which a file must not set; type it, or another value")
    return overrides


def _section(override: str) -> str:
    return re.split(r"[.=]", override.lstrip("+~"), maxsplit=1)[0]


def _is_code(text: str) -> bool:
    return "_target_" in text or text.startswith("objective.function")


def _texts(value: Any) -> Iterator[str]:
    """Every text in a value, keys of mappings among them."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield str(key)
            yield from _texts(item)
    elif isinstance(value, list | tuple):
        for item in value:
            yield from _texts(item)
    elif isinstance(value, str):
        yield value
