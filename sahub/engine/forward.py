"""Forward passes of a model after a prefix, and what a question gave that was asked by them."""

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor

from sahub.engine.contexts.prefix import Prefix
from sahub.engine.hook import Hook
from sahub.engine.model import Model
from sahub.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Answered:
    """What one question cost and gave. `hook` holds the tallies (None for the model's own attention)."""

    ids: list[int]
    hook: Hook | None
    seconds: float


@dataclass(frozen=True, kw_only=True)
class Run(Answered):
    """The same with the logits before each id of the answer, fp32 [n, vocabulary]."""

    logits: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of what is large."""
        return self.logits.nbytes


class OutOfTime(RunError):
    """A limit on seconds was reached inside a request."""


class Forward:
    """Passes after a prefix, counted by phase for the receipts."""

    def __init__(self, model: Model, prefix: Prefix, hook: Hook | None) -> None:
        self.model, self.prefix, self.hook = model, prefix, hook
        self.calls: Counter[str] = Counter()

    def __call__(self, ids: list[int], phase: str, *, keep: int) -> Tensor:
        """Logits fp32 [keep, vocabulary] after the last `keep` of `ids`."""
        if self.hook:
            self.hook.phase = phase
        chunk = torch.tensor([ids], device=self.model.device)
        output = self.model.hf(input_ids=chunk, past_key_values=self.prefix.cache, use_cache=True, logits_to_keep=keep)
        self.calls[phase] += 1
        logits: Tensor = output.logits[0].float()
        return logits


def largest(logits: Tensor, but: Collection[int]) -> int:
    """The id of the largest of `logits` [1, vocabulary], the ids of `but` left out."""
    held = [one for one in but if one < logits.shape[-1]]
    return int(
        (logits.index_fill(-1, torch.tensor(held, device=logits.device), -torch.inf) if held else logits).argmax()
    )
