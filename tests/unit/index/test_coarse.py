"""A first look at vectors in 16 bits: how far it is off is known, and what is chosen by it is what is best."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sahub.builders.build import build_stack, select
from sahub.index import page_bounds
from sahub.index.coarse import Coarse


@given(
    seed=st.integers(0, 2**20),
    num=st.integers(1, 40),
    width=st.integers(1, 70),
    rows=st.integers(1, 6),
    size=st.sampled_from([1e-42, 1e-20, 1.0, 1e4, 1e15]),
    shift=st.sampled_from([0.0, 1.0, -100.0]),
    last=st.booleans(),
)
def test_products_are_no_further_off_than_they_say(seed, num, width, rows, size, shift, last):
    noise = torch.Generator().manual_seed(seed)
    vectors = (torch.randn(2, 3, num, width, generator=noise) + shift) * size
    vectors[0, 0, 0] = vectors[0, 0, 0, 0]  # one without any spread
    asked = torch.randn(2, 3, rows, 1, width, generator=noise)
    behind = torch.randn(2, 3, 1, width, generator=noise) * size if last else None
    held = Coarse()
    held.append(vectors[:, :, : num // 2 + 1])
    if num > num // 2 + 1:
        held.append(vectors[:, :, num // 2 + 1 :])
    found = held.products(asked, vectors, behind)
    assert found is not None
    nearly, exact = found
    everything = vectors if behind is None else torch.cat([vectors, behind], dim=2)
    expected = (asked[:, :, :, 0].double() @ everything.double().mT).flatten(1, 2)[:, :, None]
    assert ((nearly - expected).abs() <= exact.slack.double() + 1e-44).all()
    assert torch.equal(exact.every(), expected.float())
    row, unit = (
        part.flatten()
        for part in torch.meshgrid(torch.arange(6 * rows), torch.arange(expected.shape[3]), indexing="ij")
    )
    torch.testing.assert_close(exact.at(row, unit), expected.float().flatten(), rtol=1e-6, atol=1e-12 * size)


@pytest.mark.parametrize("odd", [float("inf"), float("nan")])
@pytest.mark.parametrize("in_last", [True, False])
def test_vectors_that_are_no_numbers_are_not_looked_at_in_16_bits(odd, in_last):
    vectors, last, held = torch.randn(1, 1, 4, 8), torch.randn(1, 1, 1, 8), Coarse()
    (last if in_last else vectors)[0, 0, 0, 3] = odd
    held.append(vectors)
    assert held.products(torch.randn(1, 1, 4, 1, 8), vectors, last) is None


@pytest.mark.parametrize(("size", "of"), [(3e34, 1e-6), (1e33, 1e5)])
def test_rows_whose_sums_would_overflow_are_not_looked_at_in_16_bits(size, of):
    vectors, held = torch.randn(1, 1, 4, 8).abs() * of, Coarse()
    held.append(vectors)
    assert held.products(torch.randn(1, 1, 4, 1, 8).abs() * size, vectors, None) is None


@pytest.mark.parametrize("group", ["none", "sum", "max", "union"])
@pytest.mark.parametrize("label_bits", [2, 4, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_first_look_chooses_the_same_pages(group, label_bits, dtype, monkeypatch):
    noise = torch.Generator().manual_seed(label_bits)
    q, k, v = (torch.randn(2, heads, rows, 64, generator=noise) for heads, rows in ((6, 1), (2, 2999), (2, 2999)))
    k[:, :, 1000:1400] = k[:, :, 200:600]  # pages that tie
    q, k, v = (part.to(dtype) for part in (q, k, v))
    fields = {"page_size": 8, "label_bits": label_bits, "group": group}
    stages = [{"name": "sink", "sink_size": 4}, {"name": "quest", "density": 0.1, **fields}]
    monkeypatch.setattr(page_bounds, "_LARGE", 1 << 40)
    plain = select(build_stack(stages), q, k, v)
    monkeypatch.setattr(page_bounds, "_LARGE", 0)
    assert torch.equal(select(build_stack(stages), q, k, v).probabilities(), plain.probabilities())
