"""The way from a transformers model's attention to ours and back, through its public attention interface.

Only the layers that attend to every past key are routed, by a copy of their configuration: all others, and the masks
of all, stay the model's own.
"""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Protocol, cast
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask, create_mask
from transformers import AttentionInterface, PreTrainedModel

from sahub.engine.call_stats import Inputs
from sahub.errors import UnsupportedModel
from sahub.models.supported import geometry

NAME = "sahub"
# What layers pass along that says nothing of what is computed.
SILENT = frozenset(
    {
        "cache_position", "logits_to_keep", "output_attentions", "output_hidden_states", "output_router_logits",
        "return_dict", "use_cache",
    }
)  # fmt: skip


class Attends(Protocol):
    """What attention is routed to."""

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Attention of one call of one layer: [B, Q, Hq, Dv]."""


class _Route:
    """Where the layers of one model go, and the mask of the pass that they are in: it is read once for all of them."""

    def __init__(self, attends: Attends) -> None:
        self.attends = attends
        self._mask: tuple[Any, Tensor | None] = (None, None)

    def mask(self, given: Any, query: Tensor, key: Tensor) -> Tensor | None:
        """Which keys each row sees, bool [B, 1, Q, K]; None where position alone says it."""
        if self._mask[0] is not given:
            self._mask = given, read_mask(given, query.shape[0], query.shape[2], key.shape[2])
        return self._mask[1]


_routes: WeakKeyDictionary[nn.Module, _Route] = WeakKeyDictionary()
_attention: WeakKeyDictionary[PreTrainedModel, dict[int, tuple[str, nn.Module]]] = WeakKeyDictionary()


def _forward(  # noqa: PLR0917  (transformers' signature)
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Any,
    scaling: float | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    route = _routes[module]
    window = kwargs.pop("sliding_window", None)
    if window is not None and key.shape[2] > window:
        raise _unknown(module, "sliding_window", window)
    call = Inputs(
        query=query,
        key=key,
        value=value,
        mask=route.mask(attention_mask, query, key),
        scale=query.shape[-1] ** -0.5 if scaling is None else scaling,
        positions=kwargs.pop("position_ids", None),
        softcap=kwargs.pop("softcap", None),
        sinks=kwargs.pop("s_aux", None),
    )
    if kwargs.pop("is_causal", None) is False:
        raise _unknown(module, "is_causal", False)
    for name, given in kwargs.items():
        if name not in SILENT and given is not None and given is not False and not (name == "dropout" and given == 0):
            raise _unknown(module, name, given)
    return route.attends.attend(layer_of(module), call).contiguous(), None  # some models view it in another shape


def _unknown(module: nn.Module, name: str, given: Any) -> UnsupportedModel:
    shown = f"a tensor {list(given.shape)}" if isinstance(given, Tensor) else given
    return UnsupportedModel(
        f"{type(module).__name__} of layer {layer_of(module)} has {name}={shown}, which sparse attention does not "
        "compute: this model is not supported"
    )


AttentionInterface.register(NAME, _forward)


def read_mask(given: Any, batch: int, rows: int, keys: int) -> Tensor | None:
    """A mask of any attention implementation as bool [B, 1, Q, K]; None where each row sees all keys up to its own.

    given  None | 2-D bool or int [B, K] | 4-D bool, or float with 0 for what is seen | a BlockMask

    Raises UnsupportedModel for a mask that adds to the logits.
    """
    if given is None:
        return None
    if isinstance(given, BlockMask):
        given = create_mask(given.mask_mod, batch, None, rows, keys, device=str(given.kv_num_blocks.device))
    causal = torch.ones(rows, keys, dtype=torch.bool, device=given.device).tril(keys - rows)
    if given.dim() == 2:
        given = given[:, None, None, -keys:].bool() & causal
    mask = given[..., :keys]
    if mask.dtype != torch.bool:
        if bool(((mask != 0) & (mask > -1000)).any()):
            raise UnsupportedModel(
                "the mask of its attention adds to the logits, which sparse attention does not compute"
            )
        mask = mask == 0
    return None if torch.equal(mask, causal.expand_as(mask)) else mask


def layer_of(module: nn.Module) -> int:
    """The number of the layer that an attention module belongs to."""
    return int(cast(int, module.layer_idx))


def attention_modules(model: PreTrainedModel) -> dict[int, nn.Module]:
    """The attention of every layer that can be sparse. Raises UnsupportedModel where it is not transformers' own."""
    decoder, known = model.get_decoder(), _attention.get(model, {})
    if not known or any(_at(decoder, name) is not module for name, module in known.values()):
        known = _attention[model] = _found(model)  # to look for them takes longer than all else a request does here
    return {layer: module for layer, (_, module) in known.items()}


def _at(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None


def _found(model: PreTrainedModel) -> dict[int, tuple[str, nn.Module]]:
    """The same with the names that they have in the decoder."""
    wanted = geometry(model.config).layers
    found = {
        layer_of(module): (name, module)
        for name, module in model.get_decoder().named_modules()
        if hasattr(module, "layer_idx") and hasattr(module, "num_key_value_groups") and layer_of(module) in wanted
    }
    if len(found) < len(wanted):
        kinds = sorted({type(module).__name__ for module in model.modules() if "Attention" in type(module).__name__})
        which = f"only {len(found)} of {len(wanted)} layers have" if found else f"none of {len(wanted)} layers has"
        raise UnsupportedModel(
            f"model={model.config.model_type}: {which} attention that can be made sparse (its attention: "
            f"{', '.join(kinds) or 'none'}); every layer with full attention must use transformers' attention "
            "interface, as Llama's do"
        )
    return found


@contextmanager
def attached(model: PreTrainedModel, attends: Attends) -> Iterator[None]:
    """Route the layers with full attention to `attends`; whatever happens inside, the model leaves as it came."""
    modules, route = attention_modules(model), _Route(attends)
    before: dict[nn.Module, Any] = {module: module.config for module in modules.values()}
    routed = {id(config): copy.copy(config) for config in before.values()}
    for config in routed.values():
        config._attn_implementation_internal = NAME
    try:
        for module, config in before.items():
            _routes[module] = route
            module.config = routed[id(config)]
        yield
    finally:
        for module, config in before.items():
            module.config = config
            _routes.pop(module, None)
