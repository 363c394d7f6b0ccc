"""Channels for double_sparsity: `sahub calibrate model=llama text=book.txt output=llama.json`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig

from sahub.cli.commands import composed, settings_of


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    return composed("calibrate", arguments, _calibrate)


def _calibrate(cfg: DictConfig) -> None:
    """Load the model, run the text through it, write the lists."""
    from sahub.calibration.channels import write_channels  # light until the keys are right
    from sahub.data.options import read_text
    from sahub.engine.model import load_model

    text = None if cfg.text is None else read_text(f"text={cfg.text}", cfg.text)
    model = load_model(**settings_of(cfg.model))
    lists = write_channels(model, Path(cfg.output).expanduser(), text, tokens=cfg.tokens, block=cfg.block)
    sys.stdout.write(f"{cfg.output}: {len(lists)} lists\n")
