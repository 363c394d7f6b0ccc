"""Forward passes of a model after a prefix, and what a question gave that was asked by them."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Collection, Hashable
from dataclasses import dataclass

import torch
from torch import Tensor

from sahub.engine.hook import Hook
from sahub.engine.model import Model
from sahub.engine.prefix import Prefix
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


class Runs:
    """Runs by key within a byte budget of their logits: the least recently used leaves."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held: OrderedDict[Hashable, Run] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Run]) -> Run:
        """The run of `key`, made when it is not held."""
        if key not in self._held:
            self._held[key] = make()
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(run.logits.nbytes for run in self._held.values()) > self.budget_bytes:
            self._held.popitem(last=False)
        return self._held[key]

    def clear(self) -> None:
        """Forget all."""
        self._held.clear()


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
