"""Which layers can be sparse, by a configuration alone, or why none can."""

from typing import Any

import pytest
import torch
import transformers
from check_models import verdict
from conftest import tiny_config
from families import FAMILIES, SHAPE, session_of, tiny
from transformers import PretrainedConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

import sahub
from sahub.engine.session import Attention
from sahub.errors import ConfigError, UnsupportedModel
from sahub.models.supported import auto_class, check_supported, geometry, layer_kinds, reads_at_most, shared_keys

VISION = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 2}
IMAGES = VISION | {"image_size": 64, "patch_size": 16}
QWEN_VISION = {"depth": 1, "hidden_size": 32, "intermediate_size": 64, "num_heads": 2, "out_hidden_size": 64}
MROPE = {"rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [2, 3, 3]}}
WRAPPERS: dict[str, tuple[str, dict[str, Any]]] = {
    "mistral3": (
        "Mistral3Config",
        {
            "text_config": SHAPE | {"model_type": "mistral", "sliding_window": None},
            "vision_config": IMAGES | {"model_type": "pixtral", "head_dim": 16},
        },
    ),
    "gemma3": ("Gemma3Config", {"text_config": SHAPE | FAMILIES["gemma3"][1], "vision_config": IMAGES}),
    "qwen2_5_vl": ("Qwen2_5_VLConfig", {"text_config": SHAPE | MROPE, "vision_config": QWEN_VISION}),
    "qwen3_vl": (
        "Qwen3VLConfig",
        {"text_config": SHAPE | MROPE, "vision_config": QWEN_VISION | {"deepstack_visual_indexes": [0]}},
    ),
    "llava": (
        "LlavaConfig",
        {"text_config": SHAPE | {"model_type": "llama"}, "vision_config": IMAGES | {"model_type": "clip_vision_model"}},
    ),
}


def config_of(kind: str, **fields: Any) -> PretrainedConfig:
    return getattr(transformers, kind)(**fields)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_geometry_is_that_of_the_layers_with_full_attention(family: str) -> None:
    model = tiny(family)
    check_supported(model.config, family)
    shape = geometry(model.config)
    assert shape.num_layers == model.config.num_hidden_layers
    assert shape.layers == tuple(
        i for i, kind in enumerate(layer_kinds(model.config)) if kind in ("full_attention", "hybrid")
    )
    prefix = session_of(model).prefix(tuple(range(3, 40)), 8)
    for layer in shape.layers:
        keys, values = prefix.keys_values(layer)
        assert keys.shape == values.shape == (1, shape.num_kv_heads, 37, shape.head_dim)
    assert len(shape.windows) <= shape.num_layers - len(shape.layers)
    assert set(shape.windows) <= {24, 32}


def test_keys_that_layers_share_count_once() -> None:
    sharing, alone = (session_of(tiny("gemma4", num_kv_shared_layers=n)).prefix(tuple(range(3, 40)), 8) for n in (2, 0))
    assert sharing.shared == {2: 0, 3: 1}
    assert alone.shared == shared_keys(tiny("llama4").config) == {}
    assert 2 * sharing.buffered == alone.buffered
    assert torch.equal(sharing.keys_values(3)[0], sharing.keys_values(1)[0])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (("BartConfig", {}), r"model=x \(bart\): encoder-decoder models are not supported"),
        (("MambaConfig", {}), r"num_attention_heads=None: it has no attention"),
        (("DeepseekV3Config", {}), r"\(deepseek_v3\): kv_lora_rank=512: multi-head latent attention is not supported"),
        (("DeepseekV32Config", {}), "layers of type indexed_attention are not supported: they choose or compress"),
        (("Dots3NoteConfig", {}), "layers of type indexed_attention are not supported"),
        (("BambaConfig", {}), r"no layer attends to all past keys \(it has linear_attention\)"),
        (("Gemma4UnifiedAssistantConfig", {}), "attend to the keys and values of another model"),
        (
            ("Llama4TextConfig", {"layer_types": ["chunked_attention"] * 48}),
            r"no layer attends to all past keys \(it has chunked_attention\)",
        ),
        (
            ("LlamaConfig", {"num_hidden_layers": 2, "per_layer_config": {1: {"num_key_value_heads": 2}}}),
            "differ in query heads/KV heads/head size, 32/2/128 and 32/32/128: they must be equal",
        ),
    ],
)
def test_what_cannot_be_sparse_is_refused_by_name(config: tuple[str, dict[str, Any]], reason: str) -> None:
    with pytest.raises(UnsupportedModel, match=reason):
        check_supported(config_of(config[0], **config[1]), "x")


def test_windows_that_hold_all_that_is_read_are_full_attention() -> None:
    full, own = "full_attention", "sliding_attention"
    assert layer_kinds(config_of("MistralConfig", num_hidden_layers=2, sliding_window=64)) == (full, full)
    assert reads_at_most(config_of("MistralConfig", sliding_window=64)) == 64
    mixed = {**SHAPE, "layer_types": [own, full, own, full]}
    assert layer_kinds(config_of("Gemma2Config", **mixed, sliding_window=64)) == (own, full, own, full)
    assert reads_at_most(config_of("Gemma2Config", **mixed, sliding_window=64)) == 4096
    assert layer_kinds(config_of("Gemma2Config", **mixed, sliding_window=4096)) == (full, full, full, full)


@pytest.mark.parametrize("name", WRAPPERS)
def test_a_wrapper_is_used_by_its_text_model(name: str) -> None:
    kind, fields = WRAPPERS[name]
    config = config_of(kind, **fields)
    torch.manual_seed(0)
    hf = auto_class(config).from_config(config).eval()
    ids = torch.randint(3, 500, (1, 60))
    session = session_of(hf)
    prefix = session.prefix(tuple(ids[0, :40].tolist()), 32)
    with torch.inference_mode():
        expected = hf(input_ids=ids).logits[0, -1]
    for _ in range(2):
        run = session.generate(prefix, ids[0, 40:].tolist(), dense(), max_new_tokens=4)
        torch.testing.assert_close(run.logits[0], expected, atol=1e-5, rtol=1e-5)
    assert len({layer for layer, _ in run.hook.tallies}) == len(geometry(config).layers)


def dense() -> Attention:
    return Attention(stack=sahub.build_stack([{"name": "dense"}]), measure=0)


def test_only_layers_that_can_be_sparse_can_be_kept_dense() -> None:
    shape = geometry(tiny("gemma2").config)
    Attention(stack=dense().stack, dense_layers=(1,)).check(shape)
    for layers in ((0,), (1, 3)):
        with pytest.raises(ConfigError, match=r"protocol.dense_layers=\[.*\]: must be in 1, 3, and not every one"):
            Attention(stack=dense().stack, dense_layers=layers).check(shape)


def test_classes_are_those_of_causal_models_where_there_are_any() -> None:
    assert auto_class(tiny_config("llama")) is transformers.AutoModelForCausalLM
    assert auto_class(config_of("Mistral3Config")) is transformers.AutoModelForImageTextToText


@pytest.mark.slow
def test_every_configuration_of_transformers_is_supported_or_refused() -> None:
    found = {name: verdict(name, layers=False) for name in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES}
    assert [name for name, (state, _) in found.items() if state == "crashed"] == []
    ours = {*FAMILIES, "gemma3", "gemma4", "gemma3_text", "llama4", "llama4_text", "qwen3_5_text", "falcon_h1", "phi3"}
    assert {name: found[name] for name in ours if name in found and found[name][0] != "supported"} == {}
    assert sum(state == "supported" for state, _ in found.values()) > 140
