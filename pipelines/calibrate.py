"""Channels for double_sparsity: `python -m pipelines.calibrate model=llama text=book.txt output=llama.json`."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig

CONF = str(Path(__file__).resolve().parents[1] / "conf")


@hydra.main(config_path=CONF, config_name="calibrate", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Load the model, run the text through it, write the lists."""
    from sahub.calibration import write_channels
    from sahub.explain import TROUBLE, said
    from sahub.model import load_model
    from sahub.options import read_text

    try:
        text = None if cfg.text is None else read_text(f"text={cfg.text}", cfg.text)
        settings = {str(name): cfg.model[name] for name in cfg.model if cfg.model[name] is not None}
        model = load_model(settings.pop("path", None), **settings)
        lists = write_channels(model, Path(cfg.output), text, tokens=cfg.tokens, block=cfg.block)
    except TROUBLE as error:
        sys.exit(said(error))
    sys.stdout.write(f"{cfg.output}: {len(lists)} lists\n")


if __name__ == "__main__":
    main()
