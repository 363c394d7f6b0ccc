"""What a command is asked that it does not read, or that its run does not have."""

import re
from collections.abc import Sequence

from omegaconf import DictConfig

from sahub.config.cell import Cell
from sahub.config.choices import OF_MODEL, OF_TASK, UNREAD, address, names_task
from sahub.errors import ConfigError, did_you_mean


def check_compared(cells: Sequence[Cell]) -> None:
    """Raise ConfigError where a cell is to be compared with a builder that is not in the run."""
    builders = dict.fromkeys(cell.choices.builder for cell in cells)
    for cell in cells:
        for name in cell.settings.validate.compare_with:
            if name not in builders:
                known = f"must be a builder of this run, one of {', '.join(builders)}"
                raise ConfigError(f"validate.compare_with={name}: {known}{did_you_mean(name, builders)}")


def check_plugins(overrides: Sequence[str], hydra: DictConfig | None = None) -> None:
    """Raise ConfigError for a launcher or a sweeper that is not ours, typed or in a file: it would lose cells."""
    for item in overrides:
        key, _, name = item.lstrip("+~").partition("=")
        if re.fullmatch(r"hydra[./](launcher|sweeper)(\._target_)?", key) and name != "sahub":
            raise ConfigError(f"{item}: must be sahub; compute= spreads the work")
    for part in ("launcher", "sweeper"):
        target = "hydra_plugins.sahub_matrix." if hydra is None else str(hydra[part].get("_target_"))
        if not target.startswith("hydra_plugins.sahub_matrix."):
            raise ConfigError(f"hydra.{part}={target}: must be sahub's; compute= spreads the work")


def check_read(command: str, cfg: DictConfig, overrides: Sequence[str]) -> None:
    """Raise ConfigError for a setting that the command does not read."""
    for item in overrides:
        if address(item).partition(".")[0] in UNREAD[command]:
            raise ConfigError(f"{item}: `sahub {command}` does not read it; `sahub {command} --help` has its keys")
    if command == "doctor":
        _check_subject(overrides)
    if cfg.configs is not None and command != "validate":
        raise ConfigError(f"configs={cfg.configs}: must be null, as only `sahub validate` reads it")
    if command == "validate" and "search" in cfg.phases:
        raise ConfigError(f"phases={list(cfg.phases)}: `sahub validate` only validates; use `sahub search`")


def _check_subject(overrides: Sequence[str]) -> None:
    """Raise ConfigError for a setting of the doctor's other subject: it examines a task, or without one a model."""
    has_task = names_task(overrides)
    for item in overrides:
        key = address(item)
        if not has_task and key.partition(".")[0] in OF_TASK:
            raise ConfigError(f"{item}: `sahub doctor` reads it only where a task is examined; add task=NAME")
        if has_task and key in OF_MODEL:
            raise ConfigError(f"{item}: `sahub doctor` reads it only where no task is typed, to examine a model")
