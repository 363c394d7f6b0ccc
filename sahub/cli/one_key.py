"""`--help KEY`: a key, the keys of a section, or a stage: the fields of its method, and the builders that have it."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from sahub import extensions
from sahub.cli.help import described_keys, help_text, stages_of, wrapped
from sahub.config.ranges import shown
from sahub.errors import ConfigError, did_you_mean

STAGE = re.compile(r"builder\.(?:stages|search|grid)\.(\w+)(?:\.(\w+))?")


def asked_help(command: str, arguments: Sequence[str], roots: Sequence[Path]) -> str:
    """The help of a command, or of the keys that stand behind `--help`. Raises ConfigError for one there is not."""
    place = min(arguments.index(item) for item in ("-h", "--help") if item in arguments)
    asked = [item for item in arguments[place + 1 :] if "=" not in item and not item.startswith("-")]
    return "\n".join(key_help(command, key, roots) for key in asked) if asked else help_text(command, roots)


def key_help(command: str, key: str, roots: Sequence[Path]) -> str:
    """What is known of a key. Raises ConfigError for one that there is not."""
    key = key.partition("=")[0]
    if stage := STAGE.fullmatch(key):
        lines = list(_stage(stage[1], stage[2], roots))
    else:
        known = dict(described_keys(command, roots[0]))
        lines = [line for name, text in known.items() if f"{name}.".startswith(f"{key}.") for line in text]
        if not lines:
            said = did_you_mean(key, known)
            raise ConfigError(f"--help {key}: no such key{said or f'; sahub {command} --help has them all'}")
    return "".join(f"{line}\n" for line in lines)


def _stage(label: str, field: str | None, roots: Sequence[Path]) -> Iterator[str]:
    own = [one for one in stages_of(roots) if one.label == label]
    cls = extensions.method(own[0].method if own else label, f"--help builder.stages.{label}")
    found = {one.name: one for one in fields(cls)}
    if field is not None and field not in found:
        said = did_you_mean(field, found)
        raise ConfigError(f"--help builder.stages.{label}.{field}: no such field{said}; fields: {', '.join(found)}")
    yield (cls.__doc__ or "").strip().splitlines()[0]
    for name, one in found.items():
        if field in (None, name):
            yield from _field(f"builder.stages.{label}.{name}", one)
    yield "In builders, with their values; + marks what is searched:" if own else "No builder has it."
    for stage in own:
        yield from wrapped(f"  {stage.builder + ' ':<28}", " ".join(stage.facts(field)))


def _field(path: str, one: Any) -> Iterator[str]:
    default = "" if one.default is MISSING else f"={shown(one.default)}"
    unit, search = one.metadata.get("unit", ""), one.metadata.get("search")
    facts = [unit, f"searched: {shown(search)}" if search else ""]
    yield from wrapped(f"  {path}{default} ", f"[{'; '.join(filter(None, facts))}]" if any(facts) else "")
