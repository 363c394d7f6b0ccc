"""Forward passes of a model after a prefix."""

from collections import Counter
from collections.abc import Collection

import torch
from torch import Tensor

from sahub.engine.hook import Hook
from sahub.engine.model import Model
from sahub.engine.prefix import Prefix


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
