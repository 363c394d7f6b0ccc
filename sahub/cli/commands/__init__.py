"""Commands that make or read files, each a module with `main(arguments)`, which returns the exit status."""

import math
import os
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hydra
import yaml
from omegaconf import DictConfig, OmegaConf

from sahub.config.arguments import taken
from sahub.config.choices import conf_dir
from sahub.config.explain import COMPLAINTS, TROUBLE, said
from sahub.config.ranges import leaves
from sahub.errors import ConfigError, did_you_mean


def composed(name: str, arguments: Sequence[str], work: Callable[[DictConfig], None]) -> int:
    """Compose `conf/<name>.yaml` with the arguments and do the work; the exit status.

    Trouble is said in a few lines.
    """
    known, problems = _keys(name), list[str]()

    def checked(cfg: DictConfig) -> None:
        try:
            for key, fallback in known.items():
                _check(key, OmegaConf.select(cfg, key), fallback)
            work(cfg)
        except TROUBLE as error:
            problems.append(said(error))  # here, as Hydra adds lines of its own to what leaves the job

    try:
        with command_line(name, arguments):
            hydra.main(config_path=str(conf_dir()), config_name=name, version_base="1.3")(checked)()
    except COMPLAINTS as error:
        found = re.match(r"Could not override '([^']+)'", str(error))
        unknown = found and f"{found[1]}: no such key{did_you_mean(found[1], known)}; keys: {', '.join(known)}"
        problems.append(unknown or said(error))
    sys.stderr.write("".join(f"{problem}\n" for problem in problems))
    return 1 if problems else 0


def of_keys(
    arguments: Sequence[str],
    usage: str,
    needed: Sequence[str],
    work: Callable[[dict[str, str], list[str]], str],
    *,
    more: Sequence[str] = (),
    takes_overrides: bool = False,
) -> int:
    """A command of a few keys of its own, without Hydra: print what `work` makes of them; the exit status.

    work  is given the keys `needed` and `more`, and all other arguments where the command takes overrides
    """
    given, others = taken(arguments, *needed, *more)
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(usage)
        return 0
    wrong = [f"{item}: no such key" for item in others if not takes_overrides]
    wrong += [f"{name}=...: must be given" for name in needed if not given.get(name)]
    if wrong:
        sys.stderr.write(f"{wrong[0]}\n{usage}")
        return 2
    try:
        text = work(given, others)
    except TROUBLE as error:
        sys.stderr.write(f"{said(error)}\n")
        return 1
    sys.stdout.write(text)
    return 0


def settings_of(model: DictConfig) -> dict[str, Any]:
    """What the configuration group `model` says, for `sahub.load_model`."""
    settings = {str(name): model[name] for name in model if model[name] is not None}
    return {"name_or_path": settings.pop("path", None), **settings}


@contextmanager
def command_line(name: str, arguments: Sequence[str]) -> Iterator[None]:
    """What Hydra reads: the arguments, and the variable that makes it hand its errors to us."""
    before, variable = sys.argv, os.environ.get("HYDRA_FULL_ERROR")
    sys.argv, os.environ["HYDRA_FULL_ERROR"] = [f"sahub {name}", *arguments], "1"
    try:
        yield
    finally:
        sys.argv = before
        del os.environ["HYDRA_FULL_ERROR"]
        os.environ.update({} if variable is None else {"HYDRA_FULL_ERROR": variable})


def _keys(name: str) -> dict[str, Any]:
    """The keys of a command's file and their values there."""
    file = yaml.safe_load((conf_dir() / f"{name}.yaml").read_text("utf-8"))
    groups = {
        key: None for entry in file.get("defaults", ()) if isinstance(entry, dict) for key in entry if " " not in key
    }
    return groups | dict(leaves({key: value for key, value in file.items() if key not in {"defaults", "hydra"}}))


def _check(key: str, value: Any, fallback: Any) -> None:
    """Raise ConfigError for a number that is none, or is less than its default allows."""
    if isinstance(fallback, bool) or not isinstance(fallback, int | float):
        return
    least = min(fallback, 1)
    if isinstance(fallback, int):
        fits, what = isinstance(value, int) and value >= least, f"a whole number, at least {least}"
    else:
        fits, what = isinstance(value, int | float) and 0 < value < math.inf, "a number above 0"
    if not fits or isinstance(value, bool):
        raise ConfigError(f"{key}={value}: must be {what}")
