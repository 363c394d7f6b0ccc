"""Which layers of a model attend to every past key, so that they can be sparse, by its configuration; or why none can.

All other layers stay the model's own: windows, chunks, linear attention, state spaces, convolutions.
"""

from typing import Any

from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoModelForMultimodalLM,
    PretrainedConfig,
)
from transformers.cache_utils import get_layer_types_and_kwargs

from sahub.attention.call import Geometry
from sahub.errors import UnsupportedModel

FULL = frozenset({"full_attention", "hybrid"})  # hybrid: beside a state-space branch in the same layer
OWN = frozenset({"sliding_attention", "chunked_attention", "hybrid_sliding", "linear_attention", "conv", "moe", "mlp"})


def auto_class(config: PretrainedConfig) -> Any:
    """transformers' class that loads a model: for causal LMs, or for those around which sight or hearing was built."""
    wrappers = AutoModelForImageTextToText, AutoModelForMultimodalLM
    known = (one for one in (AutoModelForCausalLM, *wrappers) if type(config) in one._model_mapping)
    return next(known, AutoModelForCausalLM)


def text_of(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the language model, inside that of a model that also sees or hears."""
    return config.get_text_config(decoder=True)


def attending_layer(config: PretrainedConfig) -> PretrainedConfig:
    """The configuration of the first layer that attends to all past keys, or of the first, where none does.

    Where layers differ, a model's own configuration refuses to say what they have.
    """
    text = text_of(config)
    if not hasattr(text, "num_hidden_layers"):
        return text
    full = [layer for layer, kind in enumerate(layer_kinds(text)) if kind in FULL]
    return text.per_layer_config[full[0] if full else 0]


def layer_kinds(config: PretrainedConfig) -> tuple[str, ...]:
    """What each layer attends with, in transformers' words; a window that holds all that is read is full attention."""
    text = text_of(config)
    kinds = _declared(text)
    if wide_window(text) is None:
        return kinds
    return tuple("full_attention" if kind == "sliding_attention" else kind for kind in kinds)


def wide_window(config: PretrainedConfig) -> int | None:
    """The window, where it is as long as the model's positions or no layer looks further; None: no such window."""
    text = text_of(config)
    window, longest = getattr(text, "sliding_window", None), getattr(text, "max_position_embeddings", None)
    kinds = _declared(text)
    if not window or "sliding_attention" not in kinds:
        return None
    return window if FULL.isdisjoint(kinds) or (longest and window >= longest) else None


def reads_at_most(config: PretrainedConfig) -> int | None:
    """Tokens that the model reads here: its positions, or the window where no layer looks further. None: no limit."""
    text = text_of(config)
    limits = [getattr(text, "max_position_embeddings", None), wide_window(text)]
    return min((limit for limit in limits if limit), default=None)


def shared_keys(config: PretrainedConfig) -> dict[int, int]:
    """Layers that attend to the keys and values of an earlier layer, and which one that is."""
    text = text_of(config)
    modes, kinds = getattr(text, "kv_sharing_modes", None) or (), layer_kinds(text)
    stores = {kinds[layer]: layer for layer, mode in enumerate(modes) if mode == "store"}
    return {layer: stores[kinds[layer]] for layer, mode in enumerate(modes) if mode == "reuse"}


def windows(config: PretrainedConfig) -> tuple[int, ...]:
    """Tokens that each layer with a window or chunk holds at most."""
    text, kinds = text_of(config), layer_kinds(config)
    given = get_layer_types_and_kwargs(text)[1]
    return tuple(
        int(kwargs["sliding_window"])
        for layer, kwargs in enumerate(given)
        if kinds[layer] not in FULL and kwargs.get("sliding_window")
    )


def check_supported(config: PretrainedConfig, name: str) -> None:
    """Raise UnsupportedModel, by name, for a model none of whose layers is plain softmax attention to all past keys."""
    geometry(config, name)


def geometry(config: PretrainedConfig, name: str | None = None) -> Geometry:
    """Layers, heads and head size of the layers that can be sparse. Raises UnsupportedModel where there are none."""
    text = config if config.is_encoder_decoder else text_of(config)
    reason = _reason(config)
    if reason:
        raise UnsupportedModel(f"model={name or text.model_type} ({text.model_type}): {reason}")
    kinds = layer_kinds(text)
    full = tuple(layer for layer, kind in enumerate(kinds) if kind in FULL)
    [(heads, kv_heads, head_dim)] = _shapes(text)
    return Geometry(
        num_layers=len(kinds),
        num_heads=heads,
        num_kv_heads=kv_heads,
        head_dim=head_dim,
        full_layers=full,
        windows=windows(text),
    )


def _declared(text: PretrainedConfig) -> tuple[str, ...]:
    named = getattr(text, "layer_types", None)
    return tuple(get_layer_types_and_kwargs(text)[0] if named is None else named)


def _shapes(text: PretrainedConfig) -> set[tuple[int, int, int]]:
    """Query heads, KV heads and head size of the layers with full attention."""
    found = set()
    for number in (number for number, kind in enumerate(layer_kinds(text)) if kind in FULL):
        layer = text.per_layer_config[number]
        heads = layer.num_attention_heads
        kv_heads = getattr(layer, "num_key_value_heads", None) or heads
        found.add((heads, kv_heads, getattr(layer, "head_dim", None) or layer.hidden_size // heads))
    return found


def _reason(config: PretrainedConfig) -> str | None:
    if config.is_encoder_decoder:
        return "encoder-decoder models are not supported; use a causal LM"
    text, layer = text_of(config), attending_layer(config)
    if not hasattr(text, "num_hidden_layers") or getattr(layer, "num_attention_heads", None) is None:
        return "num_attention_heads=None: it has no attention; use a causal LM such as Llama"
    try:
        shared_keys(text)
    except (KeyError, ValueError):
        return "its layers attend to the keys and values of another model, as drafting assistants do; use a causal LM"
    if getattr(text, "is_causal", True) is False:
        return "is_causal=False: it attends to later tokens too; use a causal LM"
    kinds = layer_kinds(text)
    strange = sorted(set(kinds) - FULL - OWN)
    if strange:
        return f"layers of type {', '.join(strange)} are not supported: they choose or compress their keys themselves"
    if FULL.isdisjoint(kinds):
        return f"no layer attends to all past keys (it has {', '.join(sorted(set(kinds)))}): nothing to make sparse"
    heads, latent = layer.num_attention_heads, getattr(layer, "kv_lora_rank", None)
    if not isinstance(heads, int):
        return f"num_attention_heads={heads}: layers must all have the same number of heads"
    if latent:
        return (
            f"kv_lora_rank={latent}: multi-head latent attention is not supported, for it keeps one compressed vector "
            "for all heads in place of keys and values"
        )
    shapes = sorted(_shapes(text))
    if len(shapes) > 1:
        listed = " and ".join("/".join(map(str, shape)) for shape in shapes)
        return f"layers with full attention differ in query heads/KV heads/head size, {listed}: they must be equal"
    return None
