"""Which channels of a head matter: the lists that double_sparsity reads, measured on a text."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from sahub.engine.call_stats import Inputs
from sahub.engine.model import Model
from sahub.engine.routing import attached, attention_modules
from sahub.errors import DataError
from sahub.files.atomic import write_json
from sahub.files.package import ROOT
from sahub.models.rope import fixed_frequencies

ESSAY = ROOT / "texts" / "essay.txt"


@torch.inference_mode()
def calibrate(model: Model, text: str | None = None, *, tokens: int = 4096, block: int = 512) -> dict[str, Any]:
    """Channels of each layer and head, from the largest mean to the smallest, over at most `tokens` of `text`.

    q_proj, k_proj   |q|, |k| as the projections make them, before the rotary embedding; left out for models that have
                     no such projections, or whose projections hold more than queries
    qk_proj          |q * k| of each token with itself, after the rotary embedding
    text             None: the packaged essay; it is read in blocks of `block` tokens
    """
    ids = model.encode(ESSAY.read_text("utf-8") if text is None else text)[:tokens]
    if len(ids) < 2:
        raise DataError(f"text of {len(ids)} tokens: calibration needs more, a few thousand are good")
    sums = _Sums(model.geometry.head_dim)
    with attached(model.hf, sums), fixed_frequencies(model.hf, block), _projections(model, sums):
        for start in range(0, len(ids), block):
            chunk = torch.tensor([ids[start : start + block]], device=model.device)
            model.hf.base_model(input_ids=chunk, use_cache=False)
    return {
        f"model.layers.{layer}.self_attn.{name}": total.argsort(dim=-1, descending=True, stable=True).tolist()
        for (layer, name), total in sorted(sums.totals.items())
    }


def write_channels(model: Model, output: Path, text: str | None = None, **limits: int) -> dict[str, Any]:
    """`calibrate`, written to a JSON file; returns the lists."""
    lists = calibrate(model, text, **limits)
    write_json(output, lists)
    return lists


class _Sums:
    """Sums of magnitudes over tokens, fp64 [heads, d], by layer and name; attends densely meanwhile."""

    def __init__(self, head_dim: int) -> None:
        self.totals: dict[tuple[int, str], Tensor] = {}
        self.head_dim = head_dim

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Count the products of each token's own query and key."""
        keys = call.key.float().repeat_interleave(call.query.shape[1] // call.key.shape[1], dim=1)
        self.count(layer, "qk_proj", (call.query.float() * keys).transpose(1, 2))
        return call.dense()

    def count(self, layer: int, name: str, values: Tensor) -> None:
        """Add the values of n tokens, [1, n, heads * d] or [1, n, heads, d]."""
        total = values.float().abs().reshape(values.shape[1], -1, self.head_dim).sum(dim=0, dtype=torch.float64).cpu()
        self.totals[layer, name] = self.totals.get((layer, name), 0) + total


@contextmanager
def _projections(model: Model, sums: _Sums) -> Iterator[None]:
    handles = []
    for layer, module in attention_modules(model.hf).items():
        for name in ("q_proj", "k_proj"):
            projection = getattr(module, name, None)
            if isinstance(projection, nn.Module):
                heads = model.geometry.num_heads if name == "q_proj" else model.geometry.num_kv_heads
                handles.append(projection.register_forward_hook(_counter(sums, layer, name, heads)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _counter(sums: _Sums, layer: int, name: str, heads: int) -> Any:
    def count(module: nn.Module, inputs: Any, output: Tensor) -> None:
        del module, inputs
        if output.shape[-1] == heads * sums.head_dim:  # else with a gate beside each query
            sums.count(layer, name, output)

    return count
