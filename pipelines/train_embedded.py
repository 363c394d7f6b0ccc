"""Train the packaged model from constructed first weights: `python -m pipelines.train_embedded`."""

import logging
from pathlib import Path

import hydra
from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

CONF = str(Path(__file__).resolve().parents[1] / "conf")
log = logging.getLogger(__name__)


@hydra.main(config_path=CONF, config_name="train_embedded", version_base="1.3")
def main(cfg: DictConfig) -> None:
    """Build the tokenizer, construct the weights, run the curriculum, write the model folder."""
    import torch

    from sahub.training import construction, data, export, loop, tokenizer

    torch.set_num_threads(cfg.threads)
    words = tokenizer.build()
    bos, eos, pad = (tokenizer.special_id(words, token) for token in tokenizer.SPECIAL)
    shape = construction.config(words.get_vocab_size(), bos, eos, pad)
    model = construction.construct(shape, cfg.seed, tokenizer.mark_id(words))
    checkpoint = Path(cfg.checkpoint)
    checkpoint.parent.mkdir(parents=True, exist_ok=True)
    columns = (
        TextColumn("training"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[note]}"),
    )
    with Progress(*columns) as progress:
        bar = progress.add_task("training", total=None, note="")
        curve = loop.train(
            model,
            data.Data(words, cfg.seed),
            [loop.Phase(**phase) for phase in cfg.phases],
            learning_rate=cfg.learning_rate,
            checkpoint=checkpoint,
            on_step=lambda step, total, accuracy: progress.update(
                bar, completed=step, total=total, note=f"answer tokens right {accuracy:.3f}"
            ),
        )
    export.export(model, words, curve, Path(cfg.output))
    log.info("wrote output=%s", cfg.output)


if __name__ == "__main__":
    main()
