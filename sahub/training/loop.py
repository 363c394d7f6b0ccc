"""The training loop: a curriculum of lengths, Muon for matrices and AdamW for the rest, resumable at any step."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn import functional
from transformers import LlamaForCausalLM

from sahub.training.data import Batch, Data

log = logging.getLogger(__name__)
WARM_UP = 100  # steps
LOG_EVERY = 25  # steps


@dataclass(frozen=True, kw_only=True)
class Phase:
    """`tokens` tokens in batches of `batch` sequences of `length`.

    `repeats`: share of sequences that are repeated random segments.
    """

    length: int
    batch: int
    tokens: int
    repeats: float

    @property
    def steps(self) -> int:
        return max(1, self.tokens // (self.length * self.batch))


def schedule(phases: Sequence[Phase]) -> Iterator[Phase]:
    """The phase of every step."""
    for phase in phases:
        yield from (phase for _ in range(phase.steps))


def rate(step: int, phases: Sequence[Phase]) -> float:
    """Share of the learning rate: warm-up, constant, then linear to zero over the last quarter of all steps."""
    total = sum(phase.steps for phase in phases)
    fall = max(1, total // 4)
    return min(1.0, (step + 1) / WARM_UP, (total - step) / fall)


def optimizers(model: nn.Module, learning_rate: float) -> list[torch.optim.Optimizer]:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    matrices = [p for name, p in model.named_parameters() if p.ndim == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.ndim != 2 or "embed" in name]
    return [
        torch.optim.Muon(matrices, lr=learning_rate, momentum=0.95, weight_decay=0.0, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(others, lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.0),
    ]


def loss_and_accuracy(model: LlamaForCausalLM, batch: Batch) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy, and the share of answer tokens predicted right (NaN without any).

    Logits are computed only where something counts.
    """
    with torch.autocast("cpu", dtype=torch.bfloat16):
        hidden = model.model(batch.ids).last_hidden_state[:, :-1]
        counted = batch.weights[:, 1:] > 0
        logits = model.lm_head(hidden[counted])
    target, weight = batch.ids[:, 1:][counted], batch.weights[:, 1:][counted]
    loss = (functional.cross_entropy(logits.float(), target, reduction="none") * weight).sum() / weight.sum()
    right = (logits.argmax(-1) == target)[batch.answers[:, 1:][counted]]
    return loss, right.float().mean().item()


def train(
    model: LlamaForCausalLM,
    data: Data,
    phases: Sequence[Phase],
    *,
    learning_rate: float,
    checkpoint: Path,
    save_every: int = 200,
    on_step: Callable[[int, int, float], None] = lambda step, total, accuracy: None,
) -> list[dict[str, float]]:
    """Train in place; continue from `checkpoint` where it exists. Returns the curve (one row per LOG_EVERY steps)."""
    plan, groups, start, curve = list(schedule(phases)), optimizers(model, learning_rate), 0, []
    if checkpoint.exists():
        saved = torch.load(checkpoint, weights_only=True)
        model.load_state_dict(saved["model"])
        for group, state in zip(groups, saved["optimizers"], strict=True):
            group.load_state_dict(state)
        start, curve = saved["step"], saved["curve"]
        log.info("resumed step=%d of=%d", start, len(plan))
    seen = sum(phase.length * phase.batch for phase in plan[:start])
    recent: list[float] = []
    for step in range(start, len(plan)):
        phase = plan[step]
        for group in groups:
            for settings in group.param_groups:
                settings["lr"] = learning_rate * rate(step, phases)
            group.zero_grad()
        loss, accuracy = loss_and_accuracy(model, data.batch(step, phase.batch, phase.length, phase.repeats))
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in groups:
            group.step()
        seen += phase.length * phase.batch
        if not math.isnan(accuracy):  # two long texts may leave no room for an answer
            recent = [*recent, accuracy][-LOG_EVERY:]
        if (step + 1) % LOG_EVERY == 0:
            mean = sum(recent) / len(recent)
            curve.append({"step": step + 1, "tokens": seen, "length": phase.length, "answer_accuracy": round(mean, 4)})
            log.info("step=%d of=%d length=%d tokens=%d accuracy=%.3f", step + 1, len(plan), phase.length, seen, mean)
        if (step + 1) % save_every == 0 or step + 1 == len(plan):
            _save(checkpoint, model, groups, step + 1, curve)
        on_step(step + 1, len(plan), accuracy)
    return curve


def _save(
    path: Path, model: nn.Module, groups: list[torch.optim.Optimizer], step: int, curve: list[dict[str, float]]
) -> None:
    part = path.with_suffix(".part")
    state = {"model": model.state_dict(), "optimizers": [g.state_dict() for g in groups], "step": step, "curve": curve}
    torch.save(state, part)
    Path(part).replace(path)
