"""First weights in which a retrieval circuit already exists, so that training only has to refine it.

Residual stream (256): dimension 0 is a constant, 1..127 the token, 128 + 20 (o-1) .. what stood o = 1..6 tokens back.
Layer 0 looks back by position, layer 1 matches what it looks for against what stood before each key and copies the key;
one head of layer 2 takes back what a list has said already. From a random start none of these is useful alone, and
small models do not find them within a laptop's budget.
"""

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LlamaConfig, LlamaForCausalLM

SLOT, BACK = 20, 6
TOKEN = slice(1, 128)
FAST, SLOW = range(6), range(6, 16)  # rotary pairs (p, p + 16) of a head


def config(vocabulary: int, bos: int, eos: int, pad: int) -> LlamaConfig:
    """The shape: 4 layers, hidden 256, 8 query and 4 KV heads of 32, about 3.4 M parameters."""
    return LlamaConfig(
        vocab_size=vocabulary,
        hidden_size=256,
        intermediate_size=512,
        num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4,
        head_dim=32,
        max_position_embeddings=8192,
        rope_parameters={"rope_type": "default", "rope_theta": 1e8},
        tie_word_embeddings=True,
        bos_token_id=bos,
        eos_token_id=eos,
        pad_token_id=pad,
    )


def construct(shape: LlamaConfig, seed: int, mark: int) -> LlamaForCausalLM:
    """A model of that shape whose first two layers retrieve what followed an earlier copy of the last tokens.

    `mark`: the token that stands before each item of a list.
    """
    torch.manual_seed(seed)
    model: Any = LlamaForCausalLM(shape)
    rng = torch.Generator().manual_seed(seed)

    def normal(*size: int) -> Tensor:
        return torch.randn(*size, generator=rng)

    layers = model.model.layers
    with torch.no_grad():
        for layer in layers:
            for matrix in layer.self_attn.parameters():
                matrix.mul_(0.1)
        embedding = model.model.embed_tokens.weight
        embedding.zero_()
        embedding[:, TOKEN] = 0.0687 * normal(embedding.shape[0], 127)
        embedding[:, 0] = 0.2
        model.model.norm.weight.fill_(2.0)
        content = normal(SLOT, 127) / math.sqrt(127)
        _look_back(layers[0].self_attn, shape, content)
        _match(layers[1].self_attn, content)
        for layer in layers[1:]:
            _copy(layer.self_attn, shape, normal)
        _take_back(layers[2].self_attn, content, embedding[mark, TOKEN])
    made: LlamaForCausalLM = model
    return made


def _look_back(attention: Any, shape: LlamaConfig, content: Tensor) -> None:
    """Heads 1..6 attend to the token o = 1..6 back and write its content into slot o."""
    amplitude = math.sqrt(8.0 * math.sqrt(32)) / 4.0  # the constant is about 4 after normalisation
    q, k, v, o = (getattr(attention, f"{name}_proj").weight for name in "qkvo")
    for group in range(shape.num_key_value_heads):
        rows = 32 * group
        k[rows : rows + 32] = 0
        for pair in FAST:
            k[rows + pair, 0] = amplitude
        v[rows : rows + 32] = 0
        v[rows : rows + SLOT, TOKEN] = content
    for back in range(1, BACK + 1):
        rows = 32 * back
        q[rows : rows + 32] = 0
        for pair in FAST:
            # Rotating the query by -o turns puts the best match o tokens before it.
            angle = -back * 1e8 ** (-pair / 16)
            q[rows + pair, 0] = amplitude * math.cos(angle)
            q[rows + pair + 16, 0] = amplitude * math.sin(angle)
        slot = 128 + SLOT * (back - 1)
        o[:, rows : rows + 32] = 0
        o[slot : slot + SLOT, rows : rows + SLOT] = 0.0687 * torch.eye(SLOT)


def _match(attention: Any, content: Tensor) -> None:
    """KV head g shows slot g + 1; its two query heads ask with the present token and with slot g."""
    strength = 1.6
    dims = [*SLOW, *(pair + 16 for pair in SLOW)]
    q, k = attention.q_proj.weight, attention.k_proj.weight
    for group in range(4):
        shown = 128 + SLOT * group
        for i, dim in enumerate(dims):
            k[32 * group + dim, shown + i] += strength
            q[64 * group + dim, TOKEN] += strength * content[i]
            if group == 0:
                q[64 * group + 32 + dim, TOKEN] += strength * content[i]
            else:
                q[64 * group + 32 + dim, shown - SLOT + i] += strength


def _copy(attention: Any, shape: LlamaConfig, normal: Callable[[int, int], Tensor]) -> None:
    """Values carry a random projection of the token, outputs its transpose: what is attended to is written back."""
    per_group = shape.num_attention_heads // shape.num_key_value_heads
    for group in range(shape.num_key_value_heads):
        projection = normal(32, 127) / math.sqrt(127)
        attention.v_proj.weight[32 * group : 32 * group + 32, TOKEN] += projection
        for head in range(per_group * group, per_group * (group + 1)):
            attention.o_proj.weight[TOKEN, 32 * head : 32 * head + 32] += 0.15 * projection.T


def _take_back(attention: Any, content: Tensor, mark: Tensor) -> None:
    """Head 0, where the present token is the mark: attends to what stood behind earlier marks, and writes its opposite.

    Retrieval alone repeats the first item of a list for ever: it finds it in the text and, better still, in the list.
    """
    strength = 1.6
    dims = [*SLOW, *(pair + 16 for pair in SLOW)]
    for i, dim in enumerate(dims):
        attention.k_proj.weight[dim, 128 + i] += strength
        attention.q_proj.weight[dim, TOKEN] += strength * (content[i] @ mark) * mark / (mark @ mark)
    attention.o_proj.weight[TOKEN, :32] *= -2.0
