"""Rotary frequencies that follow the length (dynamic, longrope): those of context and question, fixed while decoding.

transformers takes them from the length of each forward pass, so that what a cache holds and what is added to it, or two
texts read one after the other, can have different ones. Here a request has one length for all of its passes.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn
from transformers import PretrainedConfig, PreTrainedModel

from sahub.errors import UnsupportedModel
from sahub.models.supported import text_of

VARYING = ("dynamic", "longrope")
FIXED = "fixed"  # no name of transformers': its update then leaves the frequencies alone


def frequencies(config: PretrainedConfig, length: int) -> Hashable:
    """What the frequencies of a text of `length` tokens are, for comparison; None where all lengths have the same."""
    text = text_of(config)
    found = [_range(text, one, length) for one in rope_parameters(text) if one.get("rope_type") in VARYING]
    return tuple(found) or None


def rope_parameters(text: PretrainedConfig) -> list[dict[str, Any]]:
    """The rotary parameters of a configuration: one set, or one for each kind of layer."""
    given = getattr(text, "rope_parameters", None) or {}
    nested = [one for one in given.values() if isinstance(one, dict) and "rope_type" in one]
    return nested or [given]


def _range(text: PretrainedConfig, parameters: dict[str, Any], length: int) -> Hashable:
    if parameters["rope_type"] == "longrope":
        return bool(length > parameters["original_max_position_embeddings"])
    return max(length, int(text.max_position_embeddings))


def check_fixable(model: PreTrainedModel) -> None:
    """Raise UnsupportedModel where frequencies follow the length, but not by transformers' own update."""
    rotaries = [module for module in model.modules() if _varying(module)]
    if frequencies(model.config, 1) is not None and not rotaries:
        kinds = {one["rope_type"] for one in rope_parameters(text_of(model.config))} & set(VARYING)
        raise UnsupportedModel(
            f"model={model.config.model_type}: rope_type={', '.join(sorted(kinds))}: its rotary embedding is not "
            "transformers' own, so that its frequencies cannot be held while a context is asked about"
        )


@contextmanager
def fixed_frequencies(model: PreTrainedModel, length: int) -> Iterator[None]:
    """Frequencies of a text of `length` tokens in every pass inside; afterwards those of short texts."""
    same = frequencies(model.config, length) is None
    rotaries: list[Any] = [] if same else [module for module in model.modules() if _varying(module)]
    kinds = [module.rope_type for module in rotaries]
    try:
        for module in rotaries:
            _settle(module, length)
            module.rope_type = {kind: FIXED for kind in module.rope_type} if _by_layer(module) else FIXED
        yield
    finally:
        for module, kind in zip(rotaries, kinds, strict=True):
            module.rope_type = kind
            _settle(module, 1)


def _by_layer(module: Any) -> bool:
    return isinstance(module.rope_type, dict)


def _varying(module: nn.Module) -> bool:
    kinds = getattr(module, "rope_type", None)
    return not {*(kinds.values() if isinstance(kinds, dict) else [kinds])}.isdisjoint(VARYING)


def _settle(module: Any, length: int) -> None:
    """What transformers makes of a first forward pass of `length` tokens, whatever was read before."""
    for kind in module.rope_type if _by_layer(module) else [None]:
        prefix = "" if kind is None else f"{kind}_"
        original = getattr(module, f"{prefix}original_inv_freq")
        setattr(module, f"{prefix}inv_freq", nn.Buffer(original.clone(), persistent=False))
        setattr(module, f"{prefix}max_seq_len_cached", module.original_max_seq_len)
        last = torch.tensor([[length - 1]], device=original.device)
        module(torch.empty(0, device=original.device), last, **({} if kind is None else {"layer_type": kind}))
