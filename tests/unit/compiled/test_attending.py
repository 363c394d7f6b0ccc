"""The attending loop against the plain formula: widths around a vector's, heads and keys around what goes together."""

import pytest
import torch

from sahub.attention.attend import attend
from sahub.attention.rows import Rows
from sahub.attention.selection import Kind, Selection

NEAR = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


@pytest.mark.parametrize("dtype", NEAR)
@pytest.mark.parametrize("heads", [1, 2, 3, 5])
@pytest.mark.parametrize(("dim", "dv"), [(8, 10), (16, 16), (20, 33), (64, 64), (128, 40)])
def test_the_loop_is_the_formula(dim, dv, heads, dtype):
    noise = torch.Generator().manual_seed(dim + heads)
    keys, groups = 20, 2
    q, k, v = (
        torch.randn(1, num, length, width, generator=noise).to(dtype)
        for num, length, width in ((groups * heads, 1, dim), (groups, keys, dim), (groups, keys, dv))
    )
    for kept in range(1, 11):
        for units in (groups, groups * heads):
            slots = torch.stack([torch.randperm(keys, generator=noise)[:kept] for _ in range(units)])[None, :, None]
            weights = torch.rand(slots.shape, generator=noise)
            weights[..., 2:3] = float("-inf")  # an empty slot: its position means nothing
            wild = torch.where(weights > float("-inf"), slots, keys + 7)
            rows = Rows(1, 1, keys, q.device)
            found, expected = (
                attend(q, k, v, Selection(Kind.PARTIAL, rows, groups * heads, groups, one, weights), backend=backend)
                for one, backend in ((wild, "gather"), (slots, "reference"))
            )
            torch.testing.assert_close(found, expected, atol=NEAR[dtype], rtol=NEAR[dtype])
