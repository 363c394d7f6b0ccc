"""Random planes for hashing: on which side of each of them a vector lies."""

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=128)
def normals(seed: int, layer: int, dim: int, num: int, device: torch.device) -> Tensor:
    """`num` standard normal vectors, fp32 [dim, num], the same for every example and head of a layer."""
    mixed = (seed * 1_000_003 + layer * 7919 + 0x5A4D) & (2**63 - 1)
    return torch.randn(dim, num, generator=torch.Generator().manual_seed(mixed)).to(device)


def sides(projected: Tensor) -> Tensor:
    """1 where a projection is positive, else 0: uint8."""
    return (projected > 0).to(torch.uint8)
