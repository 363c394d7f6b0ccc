"""Train the packaged model from constructed first weights: `sahub train_embedded`."""

import logging
from collections.abc import Sequence
from pathlib import Path

from omegaconf import DictConfig
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from sahub.cli.commands import composed
from sahub.errors import ConfigError

log = logging.getLogger(__name__)


def main(arguments: Sequence[str]) -> int:
    """The exit status."""
    return composed("train_embedded", arguments, _train)


def _train(cfg: DictConfig) -> None:
    """Build the tokenizer, construct the weights, run the curriculum, write the model folder."""
    import torch  # light until the keys are right

    from sahub.training import construction, data, export, loop, tokenizer

    try:
        phases = [loop.Phase(**phase) for phase in cfg.phases]
    except TypeError as error:
        raise ConfigError(f"phases: must be a list of phases such as those in its file ({error})") from error
    torch.set_num_threads(cfg.threads)
    words = tokenizer.build()
    bos, eos, pad = (tokenizer.special_id(words, token) for token in tokenizer.SPECIAL)
    shape = construction.config(words.get_vocab_size(), bos, eos, pad)
    model = construction.construct(shape, cfg.seed, tokenizer.mark_id(words))
    checkpoint = Path(cfg.checkpoint).expanduser()
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
            phases,
            learning_rate=cfg.learning_rate,
            checkpoint=checkpoint,
            on_step=lambda step, total, accuracy: progress.update(
                bar, completed=step, total=total, note=f"answer tokens right {accuracy:.3f}"
            ),
        )
    export.export(model, words, curve, Path(cfg.output).expanduser())
    log.info("wrote output=%s", cfg.output)
