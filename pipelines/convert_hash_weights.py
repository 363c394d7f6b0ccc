"""Weights for hash_attention: `python -m pipelines.convert_hash_weights source=a.pkl output=a.safetensors`."""

import sys
from pathlib import Path

import hydra
from omegaconf import DictConfig, OmegaConf

CONF = str(Path(__file__).resolve().parents[1] / "conf")


@hydra.main(config_path=CONF, config_name="convert_hash_weights", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Read the source as tensors and nothing else, check it, write safetensors."""
    from sahub.explain import TROUBLE, said
    from sahub.hash_convert import convert

    if lacking := sorted(OmegaConf.missing_keys(cfg)):
        sys.exit(f"{'=..., '.join(lacking)}=...: must be given")
    try:
        source, output = Path(cfg.source).expanduser(), Path(cfg.output).expanduser()
        found = convert(source, output, model=cfg.model, revision=cfg.revision, activation=cfg.activation)
    except TROUBLE as error:
        sys.exit(said(error))
    sys.stdout.write(f"{cfg.output}: {found}\n")


if __name__ == "__main__":
    main()
