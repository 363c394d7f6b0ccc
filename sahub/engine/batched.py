"""Dense answers to many prompts at once: each decoding step reads the weights once for all of them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from sahub.engine.model import Model

CACHE_BYTES = 1 << 30  # of the keys and values of a batch
MOST = 10  # prompts of a batch: more of them save little and wait for the longest


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The ids of a whole prompt, and when its greedy answer is over."""

    ids: tuple[int, ...]
    max_new_tokens: int
    line_stop: int | None = None  # as in Session.generate


def fits(model: Model) -> bool:
    """Whether prompts of different lengths can share a batch: every layer attends to the whole past."""
    kinds = getattr(model.hf.config.get_text_config(), "layer_types", None) or ()
    return set(kinds) <= {"full_attention"}


def size_of(model: Model, tokens: int) -> int:
    """How many prompts of so many tokens, with their answers, are read together."""
    shape = model.geometry
    token = 2 * shape.num_layers * shape.num_kv_heads * shape.head_dim * model.hf.dtype.itemsize
    most: int = CACHE_BYTES // (token * tokens)
    return max(1, min(MOST, most))


@torch.inference_mode()
def answers(
    model: Model, prompts: Sequence[Prompt], is_over: Callable[[int, list[int]], bool] = lambda index, ids: False
) -> list[list[int]]:
    """Greedy answers by the model's own attention, as Session.generate gives them up to rounding.

    The shorter prompts are padded on the left. `is_over` may end the answer to a prompt early, given its ids so far.
    """
    longest = max(len(prompt.ids) for prompt in prompts)
    gaps = [longest - len(prompt.ids) for prompt in prompts]
    pad = min(model.stop_ids, default=0)
    chunk = torch.tensor([[pad] * gap + list(one.ids) for gap, one in zip(gaps, prompts, strict=True)])
    mask = torch.tensor([[0] * gap + [1] * (longest - gap) for gap in gaps])
    chunk, mask = chunk.to(model.device), mask.to(model.device)
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    cache = DynamicCache(config=model.hf.config)
    found: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    while True:
        output = model.hf(
            input_ids=chunk,
            attention_mask=mask if any(gaps) else None,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        )
        chosen = _chosen(output.logits[:, -1], model, prompts, is_first=not found[0])
        for index in sorted(going):
            prompt, ids = prompts[index], found[index]
            ids.append(chosen[index])
            if ids[-1] in _stops(model, prompt) or len(ids) == prompt.max_new_tokens or is_over(index, ids):
                going.remove(index)
        if not going:
            return found
        chunk = torch.tensor([[one] for one in chosen], device=model.device)
        positions = positions[:, -1:] + 1
        mask = torch.cat([mask, torch.ones_like(chunk)], dim=1)


def _stops(model: Model, prompt: Prompt) -> Collection[int]:
    return model.stop_ids if prompt.line_stop is None else model.stop_ids | {prompt.line_stop}


def _chosen(logits: Tensor, model: Model, prompts: Sequence[Prompt], *, is_first: bool) -> list[int]:
    """The ids of the largest logits; no answer that a line break ends begins with a stop token."""
    if is_first:
        logits = logits.clone()
        for row, prompt in zip(logits, prompts, strict=True):
            if prompt.line_stop is not None:
                row[[one for one in _stops(model, prompt) if one < len(row)]] = -torch.inf
    ids: list[int] = logits.argmax(-1).tolist()
    return ids
