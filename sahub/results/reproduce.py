"""The overrides and the command lines that give a configuration again."""

import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from omegaconf import OmegaConf

from sahub.config.cell import Cell, composed
from sahub.config.choices import command
from sahub.config.grammar import addressed, written

# What does not move a result, or is said by the command itself; stage fields come from the winner.
LEFT_OUT = (
    "phases", "configs", "dry_run", "force", "results_dir", "save", "search.pin", "show", "tracker",
    "validate.compare_with",
)  # fmt: skip


def reproducing(cell: Cell) -> list[str]:
    """The cell's choices, its seed, and every setting in which it differs from what the choices alone compose to."""
    choices = [f"{group}={written(choice)}" for group, choice in cell.groups.items() if group not in LEFT_OUT]
    root = composed(choices, config_dir=cell.config_dir)[0]
    plain = cast(dict[str, Any], OmegaConf.to_container(root, resolve=False))
    ours, theirs = (dict(addressed(tree)) for tree in (cell.composed, plain))
    changed = []
    for path, value in ours.items():
        if {path, path.split(".")[0]} & {*LEFT_OUT} or (path in theirs and theirs[path] == value):
            continue
        changed.append(f"{'' if path in theirs else '++'}{path}={written(value)}")
    gone = [f"~{path}" for path in _removed(cell.composed, plain)]
    return merged([*choices, f"search.seed={cell.settings.search.seed}", *gone], changed)


def command_line(name: str, overrides: Sequence[str], config_dir: str | None = None) -> str:
    """A line to paste into a shell."""
    own = ["--config-dir", config_dir] if config_dir else []
    return f"{command(name)} {shlex.join([*own, *overrides])}"


def _removed(ours: Mapping[str, Any], theirs: Mapping[str, Any], above: str = "") -> Iterator[str]:
    """The topmost keys that only `theirs` has."""
    for name, value in theirs.items():
        if name not in ours:
            yield f"{above}{name}"
        elif isinstance(value, Mapping) and isinstance(ours[name], Mapping):
            yield from _removed(ours[name], value, f"{above}{name}.")


def merged(first: Sequence[str], then: Sequence[str]) -> list[str]:
    """Both lists, a later override of a key replacing an earlier one."""
    by_key = {override.lstrip("+").split("=")[0]: override for override in [*first, *then]}
    return list(by_key.values())
