"""Dense answers to many prompts at once: each decoding step reads the weights once for all of them."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import DynamicCache

from sahub.engine.model import Model
from sahub.models.rope import frequencies
from sahub.models.supported import layer_kinds

CACHE_BYTES = 1 << 30  # of the keys and values of a batch
MOST = 10  # prompts of a batch: more of them save little and wait for the longest


@dataclass(frozen=True, kw_only=True)
class Prompt:
    """The ids of a whole prompt, and when its greedy answer is over."""

    ids: tuple[int, ...]
    max_new_tokens: int
    line_stop: int | None = None  # as in Session.generate


def fits(model: Model) -> bool:
    """Whether prompts of different lengths can share a batch: all layers attend to the whole past, wherever it ends."""
    config = model.hf.config
    return set(layer_kinds(config)) == {"full_attention"} and frequencies(config, 1) is None


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

    What prompts have beyond the shortest is padded on its left. `is_over` may end the answer to a prompt early, given
    its ids so far.
    """
    shared = min(len(prompt.ids) for prompt in prompts) - 1  # no padding, and so no mask, for all that have so many
    cache = DynamicCache(config=model.hf.config)
    if shared:
        head = torch.tensor([prompt.ids[:shared] for prompt in prompts], device=model.device)
        model.hf.base_model(input_ids=head, past_key_values=cache, use_cache=True)
    chunk, mask = _padded([prompt.ids[shared:] for prompt in prompts], min(model.stop_ids, default=0), model.device)
    positions = shared + (mask.cumsum(-1) - 1).clamp(min=0)
    mask = torch.cat([mask.new_ones(len(prompts), shared), mask], dim=1)
    is_ragged = not bool(mask.all())
    found: list[list[int]] = [[] for _ in prompts]
    going = set(range(len(prompts)))
    while True:
        output = model.hf(
            input_ids=chunk,
            attention_mask=mask if is_ragged else None,
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


def _padded(rows: Sequence[Sequence[int]], pad: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """Rows of ids, the shorter ones padded on the left, and which of them are real: int64 [B, longest]."""
    gaps = [max(map(len, rows)) - len(row) for row in rows]
    ids = [[pad] * gap + list(row) for gap, row in zip(gaps, rows, strict=True)]
    mask = [[0] * gap + [1] * len(row) for gap, row in zip(gaps, rows, strict=True)]
    return torch.tensor(ids, device=device), torch.tensor(mask, device=device)


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
