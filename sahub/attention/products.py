"""Matrix products for scores: a key's score is the same whatever it is computed beside."""

import torch
from torch import Tensor


def product(rows: Tensor, keys: Tensor) -> Tensor:
    """rows @ keys in fp32, rounded once.

    In fp32 throughout, the last bit of a sum depends on the shape of the product (one row or many, which column), so
    equal keys would not tie and a head alone would choose otherwise than in its group.
    """
    if rows.device.type == "mps":  # has no fp64
        return rows.float() @ keys.float()
    return (rows.double() @ keys.double()).to(torch.float32)
