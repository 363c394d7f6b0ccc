"""The command line before Hydra reads it."""

import re
from collections.abc import Sequence

from sahub.errors import ConfigError, did_you_mean

OPTIONS: tuple[str, ...] = (
    "-m",
    "--multirun",
    "-r",
    "--run",
    "-c",
    "--cfg",
    "--resolve",
    "-p",
    "--package",
    "-cd",
    "--config-dir",
)
OPTIONS += ("-i", "--info", "-cn", "--config-name", "-cp", "--config-path", "-sc", "--shell-completion", "--hydra-help")


DELETABLE = r"(?:builder\.(?:stages|search|grid|limits)|task\.(?:options|where|protocol))"


def options_first(arguments: Sequence[str]) -> list[str]:
    """The same arguments with options, and the values that belong to them, before overrides: argparse wants them so.

    Raises ConfigError for an option that there is not.
    """
    options: list[str] = []
    overrides: list[str] = []
    takes_value = False
    for item in arguments:
        if item.startswith("-") and item.partition("=")[0] not in OPTIONS:
            close = did_you_mean(item, OPTIONS)
            raise ConfigError(f"{item}: no such option{close}; must be one of -m, --config-dir DIR, --cfg job, --help")
        (options if takes_value or item.startswith("-") else overrides).append(item)
        takes_value = item in {"--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp", "--cfg", "-c"}
    return [*options, *overrides]


def taken(arguments: Sequence[str], *names: str) -> tuple[dict[str, str], list[str]]:
    """The values of the keys that are a command's own, and all other arguments."""
    split = [(item, *item.partition("=")) for item in arguments]
    own = {key: value for _, key, equals, value in split if equals and key in names}
    return own, [item for item, key, equals, _ in split if not equals or key not in names]


def replacing(overrides: Sequence[str]) -> list[str]:
    """The same overrides, with what Hydra needs before some of them.

    A stage field that gets a list is null before, as Hydra puts no list where a mapping is. What is deleted is a number
    before, as Hydra takes a value that is null for none; `plan` sees to it that it was there.
    """
    found = []
    for item in overrides:
        field = re.match(r"(\+{0,2}builder\.stages\.[\w.]+)=\[", item)
        deleted = re.match(rf"~({DELETABLE}\.[\w.]+)$", item)
        found += [f"{field[1]}=null"] if field else [f"{deleted[1]}=0"] if deleted else []
        found.append(item)
    return found
