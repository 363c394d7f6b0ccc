"""Some rows of a call as a call of their own."""

import pytest
import torch

from sahub.builders.build import build_stack, select


@pytest.mark.parametrize("mode", ["denominator", "numerator", "output"])
@pytest.mark.parametrize(
    "first", [{"name": "oracle_top_k", "heavy_size": 0.6}, {"name": "quest", "density": 0.5, "page_size": 4}]
)
def test_empty_slots_of_the_last_row_are_none_of_the_first_rows(mode, first, monkeypatch):
    """An empty slot's position means nothing, so that it may lie behind the keys of the rows before."""
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, rows, 8, generator=noise) for heads, rows in ((4, 12), (2, 60), (2, 60)))
    last = {"name": "adaptive_sampling", "base_rate_sampling": 3, "mode": mode}
    stack = build_stack([{"name": "sink", "sink_size": 0.1}, {"name": "local", "window_size": 0.2}, first, last])
    whole = select(stack, q, k, v)
    monkeypatch.setattr("sahub.attention.gather._CHUNK_ELEMENTS", 1)
    assert torch.equal(select(stack, q, k, v).probabilities(), whole.probabilities())
