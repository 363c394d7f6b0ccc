"""What is typed, in Hydra's grammar: parsed, and applied to a configuration."""

from collections.abc import Sequence
from typing import cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sahub.errors import ConfigError


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in Hydra's grammar, one value each."""
    parsed: list[Override] = OverridesParser.create().parse_overrides(list(overrides))
    for override in parsed:
        if override.is_sweep_override():
            raise ConfigError(f"{override.input_line}: must be one value, not a sweep")
    return parsed


def typed_overrides(hydra: DictConfig) -> list[str]:
    """What was typed for a job, as it was typed: interpolations in it are not resolved."""
    return cast(list[str], OmegaConf.to_container(hydra.overrides.task, resolve=False))


def apply(root: DictConfig, override: Override) -> None:
    """Change the configuration as the override says. Raises ConfigError where that cannot be."""
    path, forced = override.key_or_group, override.is_add() or override.is_force_add()
    try:
        if override.is_delete():
            parent, _, last = path.rpartition(".")
            del OmegaConf.select(root, parent)[last]
        else:
            if isinstance(override.value(), list):
                OmegaConf.update(root, path, None, force_add=forced)  # or it could not replace a mapping
            OmegaConf.update(root, path, override.value(), merge=True, force_add=forced)
    except (OmegaConfBaseException, KeyError, TypeError, ValueError) as error:
        raise ConfigError(f"{override.input_line}: {str(error).splitlines()[0]}") from error
