"""What is kept of the bounds of closed pages: in 1 to 15 bits a channel, or as they are."""

from collections.abc import Sequence

import torch
from torch import Tensor

from sahub.index.packed_bits import pack, unpack

_OUT = float("-inf")
_LEAST_STEP = torch.finfo(torch.float32).tiny


def label(bounds: Tensor, bits: int) -> tuple[Tensor, ...]:
    """What is kept of closed pages [b, g, p, 2 * d]: the bounds, or codes (uint8), and low and high [b, g, p, 4].

    Codes are steps of a grid from the least to the largest value of each of the two vectors, rounded up.
    """
    bounds = bounds.masked_fill(bounds == _OUT, 0.0)  # a page of padding alone: nobody sees it
    if bits == 16:
        return (bounds,)
    both = bounds.unflatten(-1, (2, -1))
    low, high = both.amin(dim=-1, keepdim=True), both.amax(dim=-1, keepdim=True)
    step, most = _step(low, high, bits), 2**bits - 1
    both, low = both.float(), low.float()
    codes = ((both - low) / step).ceil()
    codes += low + codes * step < both  # rounding went the wrong way
    codes = codes.clamp(max=most).int().flatten(-2)
    return pack(codes, bits), torch.cat([low.to(high.dtype), high], dim=-1).flatten(-2)


def decoded(labels: Sequence[Tensor], bits: int, width: int) -> Tensor:
    """What `label` made of bounds as bounds: fp32 [b, g, p, width]."""
    if bits == 16:
        return labels[0].float()
    low, high = labels[1].unflatten(-1, (2, 2)).split(1, dim=-1)
    codes = unpack(labels[0], bits, width).unflatten(-1, (2, -1))
    grid = low.float() + codes * _step(low, high, bits)
    bounds: Tensor = torch.where(codes == 2**bits - 1, high.float(), grid).flatten(-2)
    return bounds


def _step(low: Tensor, high: Tensor, bits: int) -> Tensor:
    """Width of a step from low to high; 1 where they are equal, or too close to tell apart."""
    step = (high.float() - low.float()) / (2**bits - 1)
    return torch.where(step < _LEAST_STEP, 1.0, step)
