"""Tiny random models of families whose layers differ: windows, chunks, linear attention, state spaces, shared keys."""

from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, PretrainedConfig, PreTrainedModel

from sahub.engine.model import Model
from sahub.engine.probe import probe
from sahub.engine.session import Session
from sahub.models.supported import check_supported, geometry

SHAPE: dict[str, Any] = {
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "max_position_embeddings": 4096,
    "bos_token_id": 0,
    "eos_token_id": 1,
    "pad_token_id": 2,
}
WINDOW = {"sliding_window": 24}
MIXED = ["sliding_attention", "full_attention", "sliding_attention", "full_attention"]
EXPERTS = {"num_local_experts": 4, "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 32}
DELTA = {
    "linear_num_value_heads": 4,
    "linear_num_key_heads": 2,
    "linear_key_head_dim": 16,
    "linear_value_head_dim": 16,
    "linear_conv_kernel_dim": 4,
    "layer_types": ["linear_attention", "linear_attention", "linear_attention", "full_attention"],
    **EXPERTS,
    "shared_expert_intermediate_size": 32,
}
STATE_SPACE = {"mamba_num_heads": 8, "mamba_head_dim": 16, "n_groups": 2, "ssm_state_size": 16, "chunk_size": 16}

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "gemma2": (
        "Gemma2Config",
        {**WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 16, "attn_logit_softcapping": 2.0},
    ),
    "gemma3": ("Gemma3TextConfig", {**WINDOW, "layer_types": MIXED, "query_pre_attn_scalar": 16}),
    "gemma3n": (
        "Gemma3nTextConfig",
        {
            **WINDOW,
            "num_hidden_layers": 6,
            "layer_types": ["sliding_attention", "full_attention"] * 3,
            "intermediate_size": 96,
            "num_kv_shared_layers": 2,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 512,
            "laurel_rank": 8,
            "activation_sparsity_pattern": [0.0] * 6,
            "altup_num_inputs": 2,
        },
    ),
    "gemma4": (
        "Gemma4TextConfig",
        {
            **WINDOW,
            "layer_types": MIXED,
            "global_head_dim": 32,
            "hidden_size_per_layer_input": 16,
            "vocab_size_per_layer_input": 512,
            "num_kv_shared_layers": 2,
        },
    ),
    "gpt_oss": ("GptOssConfig", {**WINDOW, "layer_types": MIXED, **EXPERTS, "intermediate_size": 64}),
    "mistral": ("MistralConfig", {"sliding_window": 1024}),
    "ministral": ("MinistralConfig", {**WINDOW, "layer_types": MIXED}),
    "olmo3": ("Olmo3Config", {**WINDOW, "layer_types": MIXED}),
    "cohere2": ("Cohere2Config", {**WINDOW, "layer_types": MIXED, "logit_scale": 1.0}),
    "llama4": (
        "Llama4TextConfig",
        {
            **EXPERTS,
            "num_experts_per_tok": 1,
            "attention_chunk_size": 32,
            "intermediate_size_mlp": 64,
            "no_rope_layers": [1, 0, 1, 0],
            "floor_scale": 16,
        },
    ),
    "qwen3_next": ("Qwen3NextConfig", DELTA),
    "qwen3_5": ("Qwen3_5TextConfig", DELTA),
    "qwen3_5_moe": ("Qwen3_5MoeTextConfig", DELTA),
    "nemotron_h": (
        "NemotronHConfig",
        {
            **STATE_SPACE,
            "layers_block_type": ["linear_attention", "full_attention", "mlp", "full_attention", "moe"],
            "num_hidden_layers": 5,
            "n_routed_experts": 4,
            "moe_intermediate_size": 32,
            "moe_shared_expert_intermediate_size": 32,
        },
    ),
    "falcon_h1": (
        "FalconH1Config",
        {
            "mamba_d_ssm": 128,
            "mamba_n_heads": 8,
            "mamba_d_head": 16,
            "mamba_n_groups": 2,
            "mamba_d_state": 16,
            "mamba_chunk_size": 16,
        },
    ),
}


def tiny(family: str, **changes: Any) -> PreTrainedModel:
    """A seeded model of a family; `changes` are of its configuration."""
    kind, own = FAMILIES[family]
    return seeded(getattr(transformers, kind)(**{**SHAPE, **own, **changes}))


def seeded(config: PretrainedConfig) -> PreTrainedModel:
    """A seeded model, fp32, its weights large enough to have opinions."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.ndim >= 2:
                torch.nn.init.normal_(weight, std=0.15)
            else:
                weight.add_(torch.randn_like(weight) * 0.1)
    return model


def session_of(hf: PreTrainedModel) -> Session:
    """A session without a tokenizer, whose answers stop at no token."""
    check_supported(hf.config, "tiny")
    probe(hf)
    shape = geometry(hf.config)
    return Session(
        Model(
            name="tiny",
            hf=hf,
            tokenizer=None,
            geometry=shape,
            max_context_length=4096,
            stop_ids=frozenset(),
            template=False,
        )
    )
