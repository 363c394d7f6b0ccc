"""Linear layers whose weights lie in the blocks that the CPU's matrix products read.

torch multiplies fp32 by MKL, which reads a weight as it is stored. oneDNN, which torch brings for its compiled graphs,
reads one in blocks: at 8 to 50 rows, a question and its answer, in half to three quarters of the time on CPUs with
AVX-512. A large weight that must stay as it is costs it less, too. Sums are in the same precision, in another order.
"""

import ctypes
import sys
from collections import Counter

import torch
from torch import Tensor, nn

_LEAST = 100_000  # weights of a layer: below it the call costs more than the blocks save
_ROWS = 64  # that blocks are chosen for; any number reads them


class Packed(nn.Linear):
    """A linear layer for inference on the CPU: a weight in blocks is opaque but for shape, dtype and `to_dense()`."""

    def forward(self, input: Tensor) -> Tensor:
        """input [..., in_features] -> [..., out_features], of the weight's dtype."""
        if torch.is_grad_enabled() and (input.requires_grad or self.weight.requires_grad):  # the other has none
            return nn.functional.linear(input, self.weight.to_dense(), self.bias)
        result: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return result


def pack(model: nn.Module) -> None:
    """Replace the large linear layers of a model on the CPU, one after the other, where the CPU gains by it.

    Weights that several layers share stay as they lie, as those of a head that is tied to the embedding: in blocks they
    would be held twice.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return
    weights = (getattr(part, "weight", None) for _, part in model.named_modules(remove_duplicate=False))
    holders = Counter(id(weight) for weight in weights if weight is not None)
    names = [n for n, layer in model.named_modules() if type(layer) is nn.Linear and _gains(layer.weight)]
    for name in names:
        layer = model.get_submodule(name)
        model.set_submodule(name, _packed(layer, is_shared=holders[id(layer.weight)] > 1))
    if names and sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)  # what the weights left is in pieces that would stay with the process


def _gains(weight: Tensor) -> bool:
    known = weight.dtype == torch.float32
    known |= weight.dtype == torch.bfloat16 and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return known and weight.numel() >= _LEAST


def _packed(layer: nn.Module, *, is_shared: bool) -> Packed:
    assert isinstance(layer, nn.Linear)
    with torch.device("meta"):
        packed = Packed(layer.in_features, layer.out_features, bias=False)
    packed.weight, packed.bias = layer.weight, layer.bias
    if not is_shared:
        weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS)
        packed.weight = nn.Parameter(weight, requires_grad=False)
    return packed.train(layer.training)
