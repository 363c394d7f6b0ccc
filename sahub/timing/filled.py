"""A cache as long as is asked without a prefill of that length: the keys of a text, then random ones like them."""

import torch
from torch import Tensor

from sahub.engine.contexts.cache import BufferLayer
from sahub.engine.contexts.prefill import prefill
from sahub.engine.contexts.prefix import Prefix
from sahub.engine.model import Model

TEXT = 512  # tokens that are read, or more where a window is wider


def prompt(model: Model, tokens: int) -> tuple[int, ...]:
    """The first `tokens` ids of a text that goes on and on."""
    lines = [f"Line {n}: box {n * 7919 % 997} stands beside box {n * 104729 % 991}.\n" for n in range(tokens)]
    enough = tokens // max(1, model.count_tokens(lines[0]) - 2) + 2
    return tuple(model.context_ids("".join(lines[:enough]))[:tokens])


def text_tokens(model: Model, length: int) -> int:
    """How many keys of a cache are those of a text."""
    return min(length, max(TEXT, *model.geometry.windows, 0))


@torch.inference_mode()
def filled(model: Model, length: int, *, room: int, seed: int) -> Prefix:
    """A prefix of `length` tokens; what other layers hold, windows and states, is that of its text."""
    text = text_tokens(model, length)
    ids = prompt(model, text)
    made = prefill(
        model.hf, torch.tensor([ids], device=model.device), room=length - text + room, asked=length - text + room
    )
    noise = torch.Generator().manual_seed(seed)
    for layer in made.cache.layers:
        if isinstance(layer, BufferLayer) and length > text:
            layer.update(*(_like(held[:, :, :text], length - text, noise) for held in (layer.keys, layer.values)))
        elif hasattr(layer, "cumulative_length"):  # of a window: what it has seen
            layer.cumulative_length += length - text
    return Prefix(
        cache=made.cache,
        context_ids=ids + ids[-1:] * (length - text),
        room=room,
        frequencies=made.frequencies,
        shared=made.shared,
    )


def _like(real: Tensor, count: int, noise: torch.Generator) -> Tensor:
    """`count` random keys [1, g, count, d] with the means and deviations of the channels of `real`, [1, g, n, d]."""
    drawn = torch.randn(*real.shape[:2], count, real.shape[3], generator=noise).to(real.device)
    return (drawn * real.float().std(2, keepdim=True) + real.float().mean(2, keepdim=True)).to(real.dtype)
