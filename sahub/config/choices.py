"""What can be chosen: the files of every configuration group, nested ones by their full names."""

import re
from collections.abc import Iterable
from pathlib import Path

from sahub.extensions import members
from sahub.files.package import ROOT

COMMANDS = ("search", "validate", "doctor", "bench", "best")
FILE_COMMANDS = tuple(members("cli/commands"))
CELL_GROUPS = ("model", "task", "builder", "objective")
UNREAD = {  # sections of the settings that a command does not read
    "search": ("bench", "doctor", "save", "show"),
    "validate": ("bench", "doctor", "save", "show"),
    "doctor": ("bench", "cache_dir", "configs", "force", "phases", "sampler", "save", "scheduler", "show", "tracker"),
    "bench": (
        "cache_dir", "configs", "doctor", "force", "phases", "sampler", "save", "scheduler", "search", "show", "task",
        "tracker", "validate",
    ),
    "best": (
        "bench", "compute", "configs", "doctor", "dry_run", "force", "phases", "sampler", "scheduler", "search",
        "tracker", "validate",
    ),
}  # fmt: skip
OF_TASK = ("search", "validate")  # what the doctor reads where a task is typed
OF_MODEL = ("doctor.tasks", "doctor.lengths", "doctor.timing_tokens", "doctor.enough")  # and where none is
GROUPS = (
    *CELL_GROUPS, "sampler", "scheduler", "compute", "protocol", "tracker", "experiment",
)  # fmt: skip


def conf_dir() -> Path:
    """The folder of the configuration: inside an installed package, beside it in a checkout."""
    inside = ROOT / "conf"
    return inside if inside.is_dir() else ROOT.parent / "conf"


def command(name: str) -> str:
    """How a command is called: by the console script where the package is installed, as a module in a checkout."""
    return f"sahub {name}" if conf_dir().parent == ROOT else f"python -m pipelines.{name}"


def names_task(overrides: Iterable[str]) -> bool:
    """Whether a task, or something of it, was typed."""
    return any(address(item).partition(".")[0] == "task" for item in overrides)


def address(override: str) -> str:
    """The key of an override: `task` of `+task=ruler/vt`."""
    return override.lstrip("+~").partition("=")[0]


def group_choices(group: str, roots: Iterable[Path]) -> list[str]:
    """Names of a group's files under these folders, sorted, such as `ruler/niah_single_1`."""
    folders = [root / group for root in roots]
    names = {
        file.relative_to(folder).with_suffix("").as_posix() for folder in folders for file in folder.rglob("*.yaml")
    }
    return sorted(
        names, key=lambda name: [part.zfill(8) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
    )
