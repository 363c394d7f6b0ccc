"""Nothing that a layer asks of its attention is ignored: masks are read, arguments are computed or refused."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
import transformers
from families import EXPERTS, SHAPE, seeded, session_of, tiny
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.attention.flex_attention import create_block_mask
from transformers import AutoModelForCausalLM, PreTrainedModel

import sahub
from sahub.engine.call_stats import Inputs
from sahub.engine.model import wrap_model
from sahub.engine.routing import attached, attention_modules, read_mask
from sahub.engine.session import Attention
from sahub.errors import UnsupportedModel

DENSE = Attention(stack=sahub.build_stack([{"name": "dense"}]))


@pytest.fixture(scope="module")
def hf(make_model) -> PreTrainedModel:
    return make_model("llama")


@contextmanager
def passing(hf: PreTrainedModel, **more: object) -> Iterator[None]:
    """The second layer gives its attention interface more arguments."""
    attention = hf.model.layers[1].self_attn
    handle = attention.register_forward_pre_hook(lambda _, args, kwargs: (args, kwargs | more), with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("position_bias", torch.zeros(1, 4, 1, 1), r"position_bias=a tensor \[1, 4, 1, 1\]"),
        ("sinks", torch.zeros(4), r"sinks=a tensor \[4\]"),
        ("sliding_window", 8, "sliding_window=8"),
        ("indices", torch.zeros(1), r"indices=a tensor \[1\]"),
        ("block_indices", [0], r"block_indices=\[0\]"),
        ("head_mask", 0.5, "head_mask=0.5"),
        ("is_causal", False, "is_causal=False"),
        ("logit_bias", True, "logit_bias=True"),
    ],
)
def test_an_argument_that_nobody_knows_is_refused_by_name(hf, name, value, shown) -> None:
    session = session_of(hf)
    prefix = session.prefix(tuple(range(3, 40)), 32)
    refused = rf"LlamaAttention of layer 1 has {shown}, which sparse attention does not compute"
    with passing(hf, **{name: value}), pytest.raises(UnsupportedModel, match=refused):
        session.generate(prefix, [5, 6, 7], DENSE, max_new_tokens=2)


def test_arguments_that_say_nothing_of_the_result_are_let_through(hf) -> None:
    session = session_of(hf)
    prefix = session.prefix(tuple(range(3, 40)), 32)
    expected = session.generate(prefix, [5, 6, 7], DENSE, max_new_tokens=2)
    with passing(hf, sliding_window=4096, is_causal=True, softcap=None, output_attentions=False):
        found = session.generate(prefix, [5, 6, 7], DENSE, max_new_tokens=2)
    assert torch.equal(found.logits, expected.logits)


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 6), st.data())
def test_masks_of_every_implementation_say_the_same(batch: int, rows: int, past: int, data: st.DataObject) -> None:
    keys = rows + past
    padding = torch.tensor([data.draw(st.integers(0, past)) for _ in range(batch)])
    valid = torch.arange(keys) >= padding[:, None]
    expected = valid[:, None, None] & torch.ones(rows, keys, dtype=torch.bool).tril(past)
    floats = torch.where(expected, 0.0, torch.finfo(torch.float32).min)
    longer = torch.nn.functional.pad(expected, (0, 3))
    block = create_block_mask(
        lambda b, h, q, k: (k <= q + past) & (k >= padding[b]), batch, None, rows, keys, device="cpu", BLOCK_SIZE=8
    )
    for mask in (expected, floats, floats.masked_fill(~expected, float("-inf")), valid, valid.long(), longer, block):
        found = read_mask(mask, batch, rows, keys)
        assert (found is None) == (not padding.any())
        assert found is None or torch.equal(found, expected.expand(batch, -1, -1, -1))
    assert read_mask(None, batch, rows, keys) is None


def test_a_mask_that_adds_to_the_logits_is_refused() -> None:
    bias = torch.zeros(1, 4, 3, 5)
    bias[..., 0] = -0.5
    with pytest.raises(UnsupportedModel, match="adds to the logits"):
        read_mask(bias, 1, 3, 5)


def test_only_layers_with_full_attention_are_routed_and_all_are_put_back() -> None:
    model = tiny("gemma2")
    before = [(module, module.config) for module in model.modules() if hasattr(module, "config")]
    seen = []

    class Spy:
        def attend(self, layer: int, call: Inputs) -> Tensor:
            seen.append(layer)
            return call.dense()

    with attached(model, Spy()):
        model(input_ids=torch.arange(3, 60)[None])
    assert seen == [1, 3] == list(attention_modules(model))
    assert all(module.config is config for module, config in before)


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("DiffLlamaConfig", "model=diffllama: layer 0 asks transformers' attention interface 4 times in two passes"),
        ("DogeConfig", "the mask of its attention adds to the logits"),
        ("MiniMaxConfig", "model=minimax: does not run with a cache of keys and values: MiniMax uses cache of its own"),
    ],
)
def test_attention_that_is_not_plain_is_refused_when_the_model_is_loaded(kind: str, reason: str, tokenizer) -> None:
    config = getattr(transformers, kind)(**{**SHAPE, "num_hidden_layers": 2})
    with pytest.raises(UnsupportedModel, match=reason):
        wrap_model(AutoModelForCausalLM.from_config(config).eval(), tokenizer)


@pytest.mark.parametrize("kind", ["BambaConfig", "JambaConfig"])
def test_a_model_whose_layers_lose_their_state_between_passes_is_refused(kind: str, tokenizer) -> None:
    layers = {
        "BambaConfig": {"attn_layer_indices": [1]},
        "JambaConfig": {"attn_layer_period": 2, "attn_layer_offset": 1},
    }
    changes = {**EXPERTS, "mamba_n_heads": 8, "mamba_d_head": 16, "mamba_n_groups": 2, "mamba_dt_rank": 8}
    known = getattr(transformers, kind)()
    own = {name: value for name, value in changes.items() if hasattr(known, name)}
    config = getattr(transformers, kind)(**{**SHAPE, **own, **layers[kind], "num_hidden_layers": 2})
    with pytest.raises(UnsupportedModel, match="its layers do not continue a cached text"):
        wrap_model(seeded(config), tokenizer)


def test_attention_that_was_replaced_is_found() -> None:
    hf = tiny("olmo3")
    found = attention_modules(hf)
    assert attention_modules(hf) == found
    layer = max(found)
    new = copy.deepcopy(hf.model.layers[layer].self_attn)
    hf.model.layers[layer].self_attn = new
    assert attention_modules(hf)[layer] is new
    del hf.model.layers[layer].self_attn
    with pytest.raises(UnsupportedModel, match=f"only {len(found) - 1} of {len(found)} layers have"):
        attention_modules(hf)
    hf.model.layers[0].twin = copy.deepcopy(found[min(found)])  # a second one of a layer stands for no other
    with pytest.raises(UnsupportedModel, match=f"only {len(found) - 1} of {len(found)} layers have"):
        attention_modules(hf)


def test_models_that_view_the_output_in_another_shape_get_it_whole() -> None:
    layers = {"layer_types": ["sliding_attention", "full_attention"], "num_dense_layers": 2, "sliding_window": 24}
    config = transformers.AfmoeConfig(**{**SHAPE, **layers, "num_hidden_layers": 2})
    session = session_of(AutoModelForCausalLM.from_config(config).eval())
    prefix = session.prefix(tuple(range(3, 60)), 32)
    own, ours = (session.generate(prefix, [5, 6, 7], one, max_new_tokens=3) for one in (Attention(), DENSE))
    torch.testing.assert_close(ours.logits, own.logits, atol=1e-5, rtol=1e-5)
