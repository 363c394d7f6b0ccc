"""A few tokens through a loaded model, before any work: can its attention be ours, does it continue a cached text?"""

from collections import Counter

import torch
from torch import Tensor
from transformers import PreTrainedModel
from transformers.cache_utils import Cache

from sahub.engine.call_stats import Inputs
from sahub.engine.contexts.cache import new_cache
from sahub.engine.routing import attached, attention_modules
from sahub.errors import SahubError, UnsupportedModel
from sahub.models.supported import layer_kinds

TOKENS, CUT = 24, 16
STATES = frozenset({"linear_attention", "hybrid", "hybrid_sliding", "conv"})  # layers that hold more than keys
# Relative difference of the logits of a typical token, by rounding at most; what forgets its state is far beyond.
ALLOWED = {torch.float32: 1e-3, torch.float64: 1e-3}
ALLOWED_IN_HALF = 0.05


class _Probe:
    """Attends densely, and counts how often each layer asks."""

    def __init__(self) -> None:
        self.asked: Counter[int] = Counter()

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Attention of one call of one layer."""
        self.asked[layer] += 1
        return call.dense()


def probe(model: PreTrainedModel) -> None:
    """Raise UnsupportedModel for layers that do not ask our attention, or ask what it cannot do, or lose states."""
    seen, kind = _Probe(), model.config.model_type
    try:
        with attached(model, seen):
            logits = _in_two(model, 3, 4)
        apart = _apart(model) if not STATES.isdisjoint(layer_kinds(model.config)) else 0.0
    except SahubError:
        raise
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise UnsupportedModel(f"model={kind}: does not run with a cache of keys and values: {said}") from error
    for layer in attention_modules(model):
        if seen.asked[layer] != 2:
            raise UnsupportedModel(
                f"model={kind}: layer {layer} asks transformers' attention interface {seen.asked[layer]} times in two "
                "passes, must be twice: it cannot be made sparse"
            )
    if not logits.is_meta and logits.isnan().any():
        raise UnsupportedModel(f"model={kind}: its logits are NaN: {_source_of_nan(model)}")
    if not apart <= ALLOWED.get(model.dtype, ALLOWED_IN_HALF):
        raise UnsupportedModel(
            f"model={kind}: a text that is read in two passes gives logits {apart:.2g} away from those of one pass "
            "(relative): in this version of transformers its layers do not continue a cached text"
        )


def _source_of_nan(model: PreTrainedModel) -> str:
    for name, weight in model.named_parameters():
        if not (weight.to_dense() if weight.is_mkldnn else weight).isfinite().all():
            return f"the weight {name} holds NaN or infinity; the file is damaged, fetch it again"
    if model.dtype in {torch.float32, torch.float64}:
        return "its weights are finite, so a value in its config.json cannot be (rope_theta, scales)"
    kind = str(model.dtype).removeprefix("torch.")
    return f"its weights are finite, so they overflow in {kind}; try model.dtype=float32"


def _apart(model: PreTrainedModel) -> float:
    """How far one pass is from two, over the tokens of the second: the median of relative differences."""
    with torch.inference_mode():
        whole: Tensor = model(input_ids=_ids(model, TOKENS), use_cache=False).logits[0, CUT:].float()
    parts = _in_two(model, CUT, TOKENS)[0].float()
    return float(((parts - whole).norm(dim=-1) / whole.norm(dim=-1)).median())


@torch.inference_mode()
def _in_two(model: PreTrainedModel, cut: int, tokens: int) -> Tensor:
    """Logits [1, tokens - cut, vocabulary] after the first `cut` tokens."""
    cache: Cache = new_cache(model.config, tokens)
    ids = _ids(model, tokens)
    model(input_ids=ids[:, :cut], past_key_values=cache, use_cache=True)
    logits: Tensor = model(input_ids=ids[:, cut:], past_key_values=cache, use_cache=True).logits
    return logits


def _ids(model: PreTrainedModel, tokens: int) -> Tensor:
    """Tokens from the middle of the vocabulary, where no signs stand."""
    table = model.get_input_embeddings().weight
    middle = table.shape[0] // 3
    ids: Tensor = middle + torch.arange(tokens, device=table.device) * 7 % middle
    return ids[None]
