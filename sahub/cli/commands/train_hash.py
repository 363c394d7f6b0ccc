"""Weights for hash_attention, learned from a model: `sahub train_hash model=llama output=FILE`."""

import logging
import sys
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig, OmegaConf

from sahub.cli.commands import composed, settings_of


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    return composed("train_hash", arguments, _train)


def _train(cfg: DictConfig) -> None:
    """Load the model, record what it attends to, learn, write the weights."""
    import torch  # light until the keys are right

    from sahub.calibration.hash_learning import Learned, Learning
    from sahub.calibration.hash_training import task_named, train
    from sahub.engine.model import load_model
    from sahub.errors import ConfigError
    from sahub.index.hash_weights import PACKAGED

    def report(layer: int, learned: Learned) -> None:
        sys.stdout.write(f"layer {layer}: recall {learned.untrained:.3f} -> {learned.recall:.3f}\n")
        sys.stdout.flush()

    logging.getLogger("sahub").setLevel(logging.WARNING)
    torch.set_num_threads(1)  # the same weights every time
    settings = settings_of(cfg.model)
    if cfg.output is None and settings.get("name") not in PACKAGED:
        raise ConfigError("output=null: must name a file for any model but the packaged one")
    output = PACKAGED[settings["name"]] if cfg.output is None else Path(cfg.output).expanduser()
    learning = Learning(**OmegaConf.to_container(cfg.learning, resolve=True))  # type: ignore[arg-type]
    tasks = [task_named(name) for name in cfg.tasks]
    model = load_model(**settings)
    found = train(model, tasks, output, learning, texts=cfg.texts, length=cfg.length, report=report)
    sys.stdout.write(f"{output}: {found}, {output.stat().st_size / 1e6:.1f} MB\n")
