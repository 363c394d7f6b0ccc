"""Weights for hash_attention, learned from a model: `python -m pipelines.train_hash model=llama output=FILE`."""

import logging
import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

CONF = str(Path(__file__).resolve().parents[1] / "conf")


@hydra.main(config_path=CONF, config_name="train_hash", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Load the model, record what it attends to, learn, write the weights."""
    import torch

    from sahub.errors import ConfigError
    from sahub.explain import TROUBLE, said
    from sahub.hash_learning import Learned, Learning
    from sahub.hash_training import task_named, train
    from sahub.hash_weights import PACKAGED
    from sahub.model import load_model

    def report(layer: int, learned: Learned) -> None:
        sys.stdout.write(f"layer {layer}: recall {learned.untrained:.3f} -> {learned.recall:.3f}\n")
        sys.stdout.flush()

    logging.getLogger("sahub").setLevel(logging.WARNING)
    torch.set_num_threads(1)  # the same weights every time
    try:
        settings = {str(name): cfg.model[name] for name in cfg.model if cfg.model[name] is not None}
        if cfg.output is None and settings.get("name") not in PACKAGED:
            raise ConfigError("output=null: must name a file for any model but the packaged one")
        output = PACKAGED[settings["name"]] if cfg.output is None else Path(cfg.output).expanduser()
        learning = Learning(**OmegaConf.to_container(cfg.learning, resolve=True))  # type: ignore[arg-type]
        tasks = [task_named(name) for name in cfg.tasks]
        model = load_model(settings.pop("path", None), **settings)
        found = train(model, tasks, output, learning, texts=cfg.texts, length=cfg.length, report=report)
    except TROUBLE as error:
        sys.exit(said(error))
    sys.stdout.write(f"{output}: {found}, {output.stat().st_size / 1e6:.1f} MB\n")


if __name__ == "__main__":
    main()
