"""Linear layers whose weights lie in the blocks that the CPU's matrix products read.

torch multiplies fp32 by MKL, which reads a weight as it is stored. oneDNN, which torch brings for its compiled graphs,
reads one in blocks: at 8 to 50 rows, a question and its answer, in half to three quarters of the time on CPUs with
AVX-512. Sums are in the same precision, in another order.
"""

import torch
from torch import Tensor, nn

_LEAST = 100_000  # weights of a layer: below it the call costs more than the blocks save
_ROWS = 64  # that blocks are chosen for; they serve any number, from 8 on as well
_KINDS = (torch.float32, torch.bfloat16)


class Packed(nn.Linear):
    """A linear layer for inference on the CPU: its weight is opaque but for shape, dtype and `to_dense()`."""

    def forward(self, input: Tensor) -> Tensor:
        """input [..., in_features] -> [..., out_features], of the weight's dtype."""
        result: Tensor = torch.ops.mkldnn._linear_pointwise(input, self.weight, self.bias, "none", [], "")
        return result


def pack(model: nn.Module) -> None:
    """Replace the large linear layers of a model on the CPU, where the CPU gains by it.

    A head that is tied to the embedding stays: its weight would be held twice.
    """
    if not torch.backends.mkldnn.is_available() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return
    embeddings = {id(part.weight) for part in model.modules() if isinstance(part, nn.Embedding)}
    for name, layer in list(model.named_modules()):
        if type(layer) is nn.Linear and _gains(layer) and id(layer.weight) not in embeddings:
            model.set_submodule(name, _packed(layer))


def _gains(layer: nn.Linear) -> bool:
    return layer.weight.dtype in _KINDS and layer.weight.numel() >= _LEAST


def _packed(layer: nn.Linear) -> Packed:
    with torch.device("meta"):
        packed = Packed(layer.in_features, layer.out_features, bias=False)
    weight = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), _ROWS)
    packed.weight, packed.bias = nn.Parameter(weight, requires_grad=False), layer.bias
    return packed.train(layer.training)
