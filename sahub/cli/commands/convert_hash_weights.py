"""Weights for hash_attention: `sahub convert_hash_weights source=a.pkl output=a.safetensors`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sahub.cli.commands import composed
from sahub.errors import ConfigError


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    return composed("convert_hash_weights", arguments, _convert)


def _convert(cfg: DictConfig) -> None:
    """Read the source as tensors and nothing else, check it, write safetensors."""
    from sahub.calibration.hash_convert import convert  # light until the keys are right

    if lacking := sorted(OmegaConf.missing_keys(cfg)):
        raise ConfigError(f"{'=..., '.join(lacking)}=...: must be given")
    source, output = Path(cfg.source).expanduser(), Path(cfg.output).expanduser()
    found = convert(source, output, model=cfg.model, revision=cfg.revision, activation=cfg.activation)
    sys.stdout.write(f"{cfg.output}: {found}\n")
