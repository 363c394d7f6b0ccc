"""What a model is made of, from its configuration, an empty copy of it, its weights and its tokenizer."""

from collections import Counter
from typing import Any

import torch
from transformers import PretrainedConfig, PreTrainedModel

from sahub.doctor.report import Rows, bytes_text, count_text
from sahub.engine.model import Model
from sahub.errors import UnsupportedModel
from sahub.models.supported import attending_layer, auto_class, text_of

# What rotary frequencies that follow the length of context and question cost.
PREFILLED_ANEW = {
    "dynamic": "beyond its positions a context is prefilled anew for every other length of a question",
    "longrope": "a context is prefilled twice where questions end on both sides of the original positions",
}


def architecture(config: PretrainedConfig) -> dict[str, Any]:
    """The facts of a configuration; None where it does not say."""
    text = text_of(config)
    layer = attending_layer(config)
    heads, width = getattr(layer, "num_attention_heads", None), getattr(text, "hidden_size", None)
    by_default = width // heads if isinstance(heads, int) and isinstance(width, int) else None
    types = Counter(getattr(text, "layer_types", None) or ())
    window = getattr(text, "sliding_window", None) if getattr(text, "use_sliding_window", True) else None
    return {
        "class": (config.architectures or [None])[0],
        "model_type": text.model_type,
        "num_layers": getattr(text, "num_hidden_layers", None),
        "layer_types": dict(types) or None,
        "num_heads": heads,
        "num_kv_heads": getattr(layer, "num_key_value_heads", None) or heads,
        "head_dim": getattr(layer, "head_dim", None) or by_default,
        "hidden_size": width,
        "vocab_size": getattr(text, "vocab_size", None),
        "max_position_embeddings": getattr(text, "max_position_embeddings", None),
        "sliding_window": window,
        "rope": getattr(text, "rope_parameters", None) or getattr(text, "rope_scaling", None),
    }


def architecture_rows(facts: dict[str, Any]) -> Rows:
    """The facts of a configuration for people."""
    longest, rope = facts["max_position_embeddings"], facts["rope"]
    window = f"window of {facts['sliding_window']:,} tokens" if facts["sliding_window"] else "no sliding window"
    types = ", ".join(f"{count} {kind}" for kind, count in (facts["layer_types"] or {}).items())
    heads = f"{facts['num_heads']} query heads, {facts['num_kv_heads']} KV heads of {facts['head_dim']} channels"
    return [
        ("family", f"{facts['class'] or 'unnamed class'} ({facts['model_type']})"),
        ("layers", f"{facts['num_layers']}{f' ({types})' if types else ''}"),
        ("heads", heads if facts["num_heads"] else "none"),
        ("context", f"{f'{longest:,} positions' if longest else 'no limit in its configuration'}; {window}"),
        ("rotary positions", _rope_text(rope)),
    ]


def _rope_text(rope: Any) -> str:
    if not rope:
        return "none in its configuration"
    nested = {kind: one for kind, one in rope.items() if isinstance(one, dict)}
    if nested:
        return "; ".join(f"{kind}: {_rope_text(one)}" for kind, one in nested.items())
    kind = rope.get("rope_type", rope.get("type", "default"))
    scaled = [f"{name} {value:g}" for name, value in rope.items() if isinstance(value, int | float)]
    anew = f"; {PREFILLED_ANEW[kind]}" if kind in PREFILLED_ANEW else ""
    return f"{kind}{', not scaled' if kind == 'default' else ''}" + (f" ({', '.join(scaled)})" if scaled else "") + anew


def skeleton(config: PretrainedConfig, name: str, *, trust_remote_code: bool) -> PreTrainedModel:
    """The model without memory for its weights: its parts can be looked at before anything is loaded.

    Raises UnsupportedModel where transformers has no causal language model for the configuration.
    """
    try:
        with torch.device("meta"):
            return auto_class(config).from_config(config, trust_remote_code=trust_remote_code)
    except ValueError as error:
        raise UnsupportedModel(
            f"model={name} ({config.model_type}): transformers has no causal language model for it; use a causal LM"
        ) from error


def weights(model: Model, num_parameters: int) -> dict[str, Any]:
    """How the model was loaded."""
    held = list(model.hf.parameters())
    return {
        "num_parameters": num_parameters,
        "bytes": sum(part.nbytes for part in held),
        "stored": model.stored,
        "dtypes": sorted({str(part.dtype).removeprefix("torch.") for part in held}),
        "devices": sorted({str(part.device) for part in held}),
        "attn_implementation": model.hf.config._attn_implementation,
        "max_context_length": model.max_context_length,
    }


def weights_rows(facts: dict[str, Any]) -> Rows:
    """How the model was loaded, for people."""
    where = f"{', '.join(facts['dtypes'])} on {', '.join(facts['devices'])}"
    stored = [("stored as", facts["stored"])] if facts["stored"] else []
    return [
        ("parameters", f"{facts['num_parameters']:,} ({count_text(facts['num_parameters'])})"),
        *stored,
        ("loaded as", f"{where}, {bytes_text(facts['bytes'])}, dense attention {facts['attn_implementation']}"),
        ("reads at most", f"{facts['max_context_length']:,} tokens (model.max_context_length)"),
    ]


def tokenizer(model: Model) -> dict[str, Any]:
    """What the tokenizer does, and what prompts begin with."""
    words = model.tokenizer
    first = model.context_ids("a")[:2]
    bos = words.bos_token_id
    stops = sorted(model.stop_ids)
    return {
        "class": type(words).__name__,
        "num_tokens": len(words),
        "num_embeddings": model.hf.get_input_embeddings().weight.shape[0],
        "bos": words.bos_token,
        "adds_bos": bos is not None and list(words("a")["input_ids"])[:1] == [bos],
        "prompts_begin_with_bos": bos is not None and first[0] == bos,
        "doubled_bos": bos is not None and first == [bos, bos],
        "has_chat_template": bool(getattr(words, "chat_template", None)),
        "uses_chat_template": model.template is not None,
        "overhead_tokens": model.overhead_tokens,
        "thought": model.template.thought if model.template else None,
        "thought_doubt": model.template.doubt if model.template else None,
        "stop_tokens": [str(words.convert_ids_to_tokens(token)) for token in stops],
    }


def tokenizer_rows(facts: dict[str, Any]) -> Rows:
    """What the tokenizer does, for people."""
    chat = {(True, True): "yes, used", (True, False): "yes, not used (protocol.template=none)"}.get(
        (facts["has_chat_template"], facts["uses_chat_template"]), "none"
    )
    adds = "adds it itself" if facts["adds_bos"] else "does not add it itself"
    thought = [("thoughts", facts["thought"])] if facts["thought"] else []
    begin = "prompts begin with it" if facts["prompts_begin_with_bos"] else "prompts do not begin with it"
    twice = ", twice: once is usual" if facts["doubled_bos"] else ""
    return [
        ("tokens", f"{facts['num_tokens']:,} ({facts['class']}) for {facts['num_embeddings']:,} embeddings"),
        ("BOS", f"{facts['bos']}; the tokenizer {adds}; {begin}{twice}" if facts["bos"] else "none"),
        ("chat template", f"{chat}; prompts cost {facts['overhead_tokens']} more than context and question"),
        *thought,
        ("answers end at", ", ".join(facts["stop_tokens"]) or "nothing: every answer has max_new_tokens"),
    ]
