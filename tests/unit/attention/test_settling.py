"""Scores in fp32, and what settles their order: the choice is that of the exact scores, whatever fp32 made of them."""

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sahub.attention import products, selectors
from sahub.attention.products import Exact, product, scored
from sahub.attention.selectors import best, shortlist, threshold, top_k

OUT = float("-inf")


@st.composite
def problems(draw):
    """Exact scores with ties and empty units, fp32 ones that are a little off, how far, and how many to choose."""
    heads, rows, size = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(st.integers(1, 200))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    exact = torch.randn(1, heads, rows, size, generator=noise)
    if draw(st.booleans()):
        exact = (exact * draw(st.sampled_from([1, 4, 30]))).round() / 8  # many that are equal
    exact[torch.rand(exact.shape, generator=noise) < draw(st.sampled_from([0.0, 0.3, 0.95]))] = OUT
    slack = draw(st.sampled_from([1e-6, 1e-3, 0.2]))
    off = exact + (torch.rand(exact.shape, generator=noise) * 2 - 1) * slack * 0.9
    num = torch.randint(-1, size + 2, (1, draw(st.sampled_from([1, heads])), rows), generator=noise)
    if draw(st.booleans()):
        num = num.flatten()[0].expand(1, 1, 1)
    return exact, off, num, slack


def settling(exact, slack):
    """What settles the order of scores that are within `slack` of the exact ones."""
    flat = exact.flatten(0, 2)
    return Exact(slack=torch.full((*exact.shape[:3], 1), slack), at=lambda r, u: flat[r, u], every=lambda: exact)


def wanted(exact, num):
    """The choice, one unit after the other."""
    kept = torch.zeros(exact.shape, dtype=torch.bool)
    for h in range(exact.shape[1]):
        for row in range(exact.shape[2]):
            line = exact[0, h, row].tolist()
            order = sorted(range(len(line)), key=lambda unit: (-line[unit], -unit))
            many = max(0, int(num.expand(1, exact.shape[1], exact.shape[2])[0, h, row]))
            kept[0, h, row, [unit for unit in order[:many] if line[unit] > OUT]] = True
    return kept


def kept_of(picks, size):
    """The picked units as a mask; each is picked once."""
    inside = picks.log_weight > OUT
    found = torch.zeros(*picks.units.shape[:3], size + 1, dtype=torch.int64)
    found.scatter_add_(-1, torch.where(inside, picks.units, size), torch.ones_like(picks.units))
    assert int(found[..., :size].max()) <= 1
    return found[..., :size] > 0


@pytest.mark.parametrize("many", [1, 4096])  # from where a sample tells where to cut
@settings(max_examples=60, deadline=None, derandomize=True)
@given(problem=problems())
def test_the_choice_is_that_of_the_exact_scores(many, problem):
    exact, off, num, slack = problem
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selectors, "_MANY", many)
        size, right = off.shape[-1], wanted(exact, num)
        for choose in (best, top_k):
            assert torch.equal(kept_of(choose(off, num, exact=settling(exact, slack)), size), right)
            assert torch.equal(kept_of(choose(exact, num), size), right)
        ranked = top_k(off, num, exact=settling(exact, slack))
        values = exact.gather(-1, ranked.units).masked_fill(ranked.log_weight == OUT, OUT)
        assert bool((values.diff() <= 0).logical_or(values[..., 1:].isneginf()).all())
        least = float(exact.flatten()[0].nan_to_num(neginf=-9.0))
        assert torch.equal(kept_of(threshold(exact, least), size), exact >= least)


def test_units_in_any_order_are_settled_where_they_end():
    exact = torch.randn(1, 2, 1, 300, generator=torch.Generator().manual_seed(0))
    off = exact + 1e-3 * torch.rand(exact.shape, generator=torch.Generator().manual_seed(1))
    num = torch.tensor([[[40]]])
    asked = []
    settle = settling(exact, 1e-3)
    spy = Exact(slack=settle.slack, at=lambda r, u: asked.append(len(u)) or settle.at(r, u), every=settle.every)
    assert torch.equal(kept_of(top_k(off, num, 40, spy, 40), 300), wanted(exact, num))
    in_order = top_k(off, num, 40, settle)
    assert torch.equal(exact.gather(-1, in_order.units), exact.sort(descending=True).values[..., :40])
    assert sum(asked) < 10


def test_a_shortlist_of_many_holds_the_best_and_is_short():
    rows = torch.randn(3, 40_000, generator=torch.Generator().manual_seed(0))
    units, values = shortlist(rows, 1000)
    assert units.shape[1] < 4000
    assert torch.equal(values[values > OUT], rows.gather(1, units)[values > OUT])
    best_ones = rows.topk(1000).values
    assert torch.equal(values.topk(1000).values, best_ones)
    rows[:, ::16] = -9.0  # a sample that knows nothing of the rest
    assert torch.equal(shortlist(rows, 1000)[1].topk(1000).values, rows.topk(1000).values)


def test_products_in_fp32_are_within_their_slack_and_settle_to_fp64(monkeypatch):
    monkeypatch.setattr(products, "SMALL", 0)
    noise = torch.Generator().manual_seed(0)
    rows = torch.randn(2, 2, 3, 2, 96, generator=noise) * 5
    keys = torch.randn(2, 2, 500, 96, generator=noise) + 2
    keys[:, :, 250:] = keys[:, :, :250].clone()  # every key twice
    for scale in (1.0, 0.1):
        fast, exact = scored(rows, keys, scale=scale)
        assert exact is not None
        right = product(rows.flatten(2, 3), keys.mT).unflatten(2, (3, 2)).flatten(1, 2) * scale
        assert torch.equal(exact.every(), right)
        assert bool(((fast - right).abs() <= exact.slack).all())
        row = torch.arange(2 * 6 * 2).repeat_interleave(500)
        unit = torch.arange(500).repeat(2 * 6 * 2)
        assert torch.equal(exact.at(row, unit), right.flatten())
        chosen = best(fast, torch.tensor([[[75]]]), exact=exact)
        assert torch.equal(kept_of_batch(chosen, 500), kept_of_batch(top_k(right, torch.tensor([[[75]]])), 500))


def kept_of_batch(picks, size):
    """The picked units as a mask."""
    found = torch.zeros(*picks.units.shape[:3], size, dtype=torch.bool)
    return found.scatter_(-1, picks.units, picks.log_weight > OUT)


def test_keys_that_are_not_finite_are_scored_exactly(monkeypatch):
    monkeypatch.setattr(products, "SMALL", 0)
    keys = torch.ones(1, 1, 5, 4)
    keys[0, 0, 2] = float("inf")
    scores, exact = scored(torch.ones(1, 1, 1, 1, 4), keys)
    assert exact is None
    assert scores.flatten().tolist() == [4, 4, float("inf"), 4, 4]
