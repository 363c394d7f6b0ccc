"""A context through the model's own dense attention, some tokens at a time."""

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from sahub.engine.call_stats import Inputs
from sahub.engine.contexts.cache import new_cache
from sahub.engine.contexts.prefix import Prefix
from sahub.engine.routing import attached
from sahub.models.rope import fixed_frequencies, frequencies
from sahub.models.supported import shared_keys, text_of, wide_window


def tokens_at_once(device: str) -> int:
    """How many tokens of a context pass on a type of device together: it bounds what is held beside keys and values.

    On a CPU, what the layers hold of a thousand tokens comes and goes in the same memory; of many, glibc keeps pieces.
    """
    return 1024 if device == "cpu" else 8192


@torch.inference_mode()
def prefill(model: Any, ids: Tensor, *, room: int, asked: int = 0, chunk: int | None = None) -> Prefix:
    """Run the context `ids` [1, n] through the model's own dense attention, without its output layer.

    room   tokens to keep free for question and answer
    asked  tokens of the question, for rotary frequencies that follow the length of both
    chunk  tokens that pass together; None: as many as suit the device

    One context of a model at a time: on a CPU its attention is routed meanwhile.
    """
    cache = new_cache(model.config, ids.shape[1] + room)
    least = {"logits_to_keep": 1} if model.base_model is model else {}  # some classes have their output layer inside
    size = chunk or tokens_at_once(ids.device.type)
    joins = ids.device.type == "cpu" and text_of(model.config)._attn_implementation == "sdpa"
    joins &= ids.shape[1] <= (wide_window(model.config) or ids.shape[1])
    with fixed_frequencies(model, ids.shape[1] + asked):
        for start in range(0, ids.shape[1], size):
            with attached(model, _Joined()) if joins and start else nullcontext():
                model.base_model(input_ids=ids[:, start : start + size], past_key_values=cache, use_cache=True, **least)
    return Prefix(
        cache=cache,
        context_ids=tuple(ids[0].tolist()),
        room=room,
        frequencies=frequencies(model.config, ids.shape[1] + asked),
        shared=shared_keys(model.config),
    )


class _Joined:
    """What torch computes of a chunk after other tokens, where reading a mask costs a third of the attention again.

    The same kernel attends to the keys before the chunk and to those of the chunk, and says what each softmax sums to.
    """

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Attention of one call of one layer: [B, Q, Hq, Dv]."""
        del layer
        query, key, value = call.query, call.key, call.value
        past, group = key.shape[2] - query.shape[2], query.shape[1] // key.shape[1]
        plain = call.mask is None and call.softcap is None and call.sinks is None
        plain &= all(one.stride(-1) == 1 and one.shape[3] == key.shape[3] for one in (query, key, value))
        if not (plain and past):
            return call.dense()
        kernel = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
        chunk = (one[:, :, past:].repeat_interleave(group, dim=1) for one in (key, value))
        own, own_sum = kernel(query, *chunk, is_causal=True, scale=call.scale)
        together = query.unflatten(1, (-1, group)).flatten(2, 3)  # heads that share keys, as rows of one
        before, before_sum = kernel(together, key[:, :, :past], value[:, :, :past], scale=call.scale)
        before, before_sum = (one.unflatten(2, (group, -1)).flatten(1, 2) for one in (before, before_sum))
        share = torch.sigmoid(before_sum - own_sum)[..., None]  # of logarithms, in fp32 at least: [B, Hq, Q]
        joined = torch.lerp(own.to(share.dtype), before.to(share.dtype), share)
        return joined.to(query.dtype).transpose(1, 2)
