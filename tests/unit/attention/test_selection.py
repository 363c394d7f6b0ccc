"""Selections: merging, densities, choosing, and what counts as a valid key."""

import math

import pytest
import torch

from sahub.attention.budgets import most_tokens, row_tokens
from sahub.attention.call import Call
from sahub.attention.noise import noise
from sahub.attention.rows import Rows, rows_of
from sahub.attention.selection import Kind, Selection
from sahub.attention.selectors import sample, threshold, top_k, top_p
from sahub.builders.build import build_stack, select
from sahub.errors import ConfigError, SahubError

OUT = float("-inf")
CPU = torch.device("cpu")


def bare(num_keys=8, num_rows=1, heads=2, kv_heads=1, mask=None, batch=1):
    return Selection.none(Rows(batch, num_rows, num_keys, CPU, mask), heads, kv_heads)


def sel(*slots, weights=None, heads=2, **shape):
    """The same slots for every row; None is an empty one."""
    weights = [0.0] * len(slots) if weights is None else weights
    weights = [OUT if slot is None else w for slot, w in zip(slots, weights, strict=True)]
    slots = torch.tensor([slot or 0 for slot in slots]).view(1, 1, 1, -1)
    return bare(heads=heads, **shape).of(slots, torch.tensor(weights).view(1, 1, 1, -1))


def chances(selection):
    return selection.probabilities()[0, 0, 0].tolist()


def test_none_is_no_selection_and_all_is_every_valid_key():
    nothing, some = bare(), sel(1, 2)
    assert nothing.then(some) is some
    assert some.then(nothing) is some
    assert nothing.then(nothing).kind is Kind.NONE
    assert some.then(nothing.all()).kind is Kind.ALL
    assert nothing.all().then(some).kind is Kind.ALL
    assert chances(nothing) == [0] * 8
    assert chances(nothing.all()) == [1] * 8
    mask = torch.arange(8)[None] >= 3
    assert chances(bare(mask=mask).all()) == [0] * 3 + [1] * 5


def test_merging_keeps_each_key_once_and_touches_no_input():
    first, second = sel(5, None, 1), sel(1, 3, None)
    before = [x.clone() for x in (first.slots, first.weights, second.slots, second.weights)]
    both = first.then(second)
    assert chances(both) == [0, 1, 0, 1, 0, 1, 0, 0]
    assert both.counts().tolist() == [[[3], [3]]]
    after = (first.slots, first.weights, second.slots, second.weights)
    assert all(torch.equal(x, y) for x, y in zip(before, after, strict=True))


def test_certain_wins_over_sampled_and_two_samples_are_independent():
    sampled = sel(0, 1, 2, weights=[-math.log(0.25)] * 3)
    assert chances(sampled.then(sel(1)))[:3] == pytest.approx([0.25, 1, 0.25])
    assert chances(sel(1).then(sampled))[:3] == pytest.approx([0.25, 1, 0.25])
    twice = sampled.then(sel(2, weights=[-math.log(0.5)]))
    assert chances(twice)[:3] == pytest.approx([0.25, 0.25, 1 - 0.75 * 0.5])
    rare = sel(0, weights=[-math.log(1e-6)])
    assert 1 / chances(rare.then(sel(3)))[0] == pytest.approx(1e6, rel=1e-4)  # no epsilon on the probability


def test_merging_one_head_with_many():
    shared = sel(0, 1, heads=4, kv_heads=2)
    own = bare(heads=4, kv_heads=2).of(torch.tensor([1, 2, 3, 3]).view(1, 4, 1, 1), torch.zeros(1, 1, 1, 1))
    assert shared.slots.shape[1] == 1
    assert shared.then(own).counts().flatten().tolist() == [2, 3, 3, 3]
    assert shared.then(own).indices.shape == (1, 4, 1, 3)


def test_density_counts_valid_keys_and_skips_rows_without_any():
    mask = torch.tensor([[False] * 6 + [True] * 2, [True] * 8])
    # rows at 4 .. 7: sequence 0 has 0, 0, 1, 2 valid keys, sequence 1 has 5, 6, 7, 8
    rows = Rows(2, 4, 8, CPU, mask)
    assert rows.counts.tolist() == [[0, 0, 1, 2], [5, 6, 7, 8]]
    slots = torch.tensor([[[[0], [0], [6], [6]]], [[[0], [1], [2], [3]]]])
    weights = torch.tensor([[[[OUT], [OUT], [0], [0]]], [[[0.0], [0], [0], [0]]]])
    selection = Selection.none(rows, 2, 1).of(slots, weights)
    expected = (1 + 1 / 2 + 1 / 5 + 1 / 6 + 1 / 7 + 1 / 8) / 6
    assert float(selection.density()) == pytest.approx(expected)
    assert float(selection.kv_density()) == pytest.approx(expected)
    assert float(selection.all().density()) == 1
    assert selection.check() is selection
    assert float(Selection.none(rows, 2, 1).density()) == 0


def test_kv_density_is_the_union_over_the_group():
    slots = torch.tensor([[0, 1], [1, 2], [4, 4], [5, 4]]).view(1, 4, 1, 2)
    weights = torch.tensor([[0, 0], [0, 0], [0, OUT], [0, 0]]).view(1, 4, 1, 2)
    selection = bare(heads=4, kv_heads=2).of(slots, weights)
    assert float(selection.density()) == pytest.approx((2 + 2 + 1 + 2) / 4 / 8)
    assert float(selection.kv_density()) == pytest.approx((3 + 2) / 2 / 8)


def test_a_row_with_keys_and_nothing_selected_is_an_error():
    with pytest.raises(SahubError, match="2 of 2 rows have valid keys and nothing selected"):
        sel(None).check()
    with pytest.raises(SahubError, match="nothing selected"):
        bare().check()
    mask = torch.zeros(1, 8, dtype=torch.bool)
    assert sel(None, mask=mask).check().bare().sum() == 0


@pytest.mark.parametrize(
    ("q", "k", "mask", "text"),
    [
        ((1, 2, 3, 4), (1, 1, 2, 4), None, "3 rows for 2 keys"),
        ((1, 3, 1, 4), (1, 2, 2, 4), None, "multiple of g"),
        ((1, 2, 1, 4), (1, 1, 2, 4), torch.ones(1, 2), r"mask=torch.float32 \[1, 2\]: must be bool"),
        ((1, 2, 1, 4), (1, 1, 2, 4), torch.ones(1, 2, 1, 2, dtype=torch.bool), "a mask per head is not supported"),
        ((1, 2, 1, 4), (1, 1, 2, 4), torch.ones(1, 3, dtype=torch.bool), r"\[1, 2\] or \[1, 1, 1, 2\]"),
    ],
)
def test_shapes_that_cannot_belong_together_are_refused(q, k, mask, text):
    with pytest.raises(ConfigError, match=text):
        rows_of(torch.zeros(q), torch.zeros(k), mask)


def test_top_k_prefers_high_scores_then_recent_keys():
    scores = torch.tensor([[[[1.0, 3.0, OUT, 3.0, 1.0, -0.0, 0.0]]]])
    assert top_k(scores, torch.tensor([[[3]]])).units[0, 0, 0, :3].tolist() == [3, 1, 4]
    everything = top_k(scores, torch.tensor([[[7]]]))
    assert everything.units[0, 0, 0, :6].tolist() == [3, 1, 4, 0, 6, 5]
    assert (everything.log_weight > OUT).sum() == 6  # what is excluded is never taken
    assert (top_k(scores, torch.tensor([[[0]]])).log_weight > OUT).sum() == 0
    assert (top_k(scores, torch.tensor([[[-2]]])).log_weight > OUT).sum() == 0


def test_top_k_takes_as_many_as_each_row_asks_for():
    scores = torch.arange(5.0).expand(1, 2, 3, 5)
    picks = top_k(scores, torch.tensor([[[0, 1, 4]]]))
    assert (picks.log_weight > OUT).sum(-1).tolist() == [[[0, 1, 4], [0, 1, 4]]]


def test_top_k_orders_every_float():
    scores = torch.randn(4, 2, 3, 50, generator=torch.Generator().manual_seed(0)) * 1e3
    assert torch.equal(top_k(scores, torch.full((4, 2, 3), 50)).units, scores.argsort(-1, descending=True))


def test_threshold_keeps_what_reaches_it():
    picks = threshold(torch.tensor([[[[1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]]]), 2.0)
    assert (picks.log_weight > OUT).sum(-1).tolist() == [[[2, 0]]]


@pytest.mark.parametrize(("share", "num"), [(0.0, 1), (0.49, 1), (0.51, 2), (0.74, 2), (0.76, 3), (1.0, 4)])
def test_top_p_keeps_units_while_the_mass_before_them_is_within_the_share(share, num):
    scores = torch.tensor([0.5, 0.125, 0.25, 0.125]).log().view(1, 1, 1, 4)
    picks = top_p(scores, share)
    assert (picks.log_weight > OUT).sum() == num
    assert picks.units[0, 0, 0, :num].tolist() == [0, 2, 3, 1][:num]


def test_top_p_knows_sizes_and_what_was_kept_before():
    scores = torch.tensor([[[[0.0, 0.0, OUT]]]])
    assert (top_p(scores, 0.6, sizes=torch.tensor([1, 3, 0])).log_weight > OUT).sum() == 1  # unit 1 first: 3 of 4
    assert top_p(scores, 0.6, sizes=torch.tensor([1, 3, 0])).units[0, 0, 0, 0] == 1
    before = torch.tensor(8.0).log().view(1, 1, 1, 1)
    assert (top_p(scores, 0.75, taken=before).log_weight > OUT).sum() == 0
    assert (top_p(scores, 0.85, taken=before).log_weight > OUT).sum() == 1
    assert (top_p(scores, 0.95, taken=before).log_weight > OUT).sum() == 2


def test_top_p_survives_large_logits_and_many_keys():
    scores = torch.zeros(1, 1, 1, 70_000) + 1e4
    assert (top_p(scores, 0.998).log_weight > OUT).sum() == pytest.approx(69_860, abs=2)
    assert (top_p(torch.full((1, 1, 1, 3), OUT), 0.5).log_weight > OUT).sum() == 0


def _call(q_rows=1, keys=64, mask=None, **key):
    q, k = torch.zeros(1, 2, q_rows, 4), torch.zeros(1, 1, keys, 4)
    return Call(q=q, k=k, v=k, scale=1.0, rows=rows_of(q, k, mask), **key)


def test_sampling_is_uniform_without_replacement_and_says_its_probability():
    candidates = torch.arange(64) >= 4
    hits = torch.zeros(64)
    for step in range(400):
        picks = sample(candidates.expand(1, 2, 1, 64), torch.tensor([[[15]]]), noise(_call(step=step)))
        assert (picks.log_weight > OUT).sum() == 30
        assert torch.exp(-picks.log_weight[picks.log_weight > OUT]).tolist() == pytest.approx([15 / 60] * 30)
        hits.index_add_(0, picks.units[picks.log_weight > OUT], torch.ones(30))
    assert hits[:4].sum() == 0
    assert (hits[4:] / 800 - 0.25).abs().max() < 4.5 * math.sqrt(0.25 * 0.75 / 800)
    everything = sample(candidates.expand(1, 2, 1, 64), torch.tensor([[[99]]]), noise(_call()))
    assert everything.log_weight[everything.log_weight > OUT].tolist() == [0.0] * 120


def test_noise_depends_on_its_keys_alone():
    plain = noise(_call(q_rows=2))
    assert torch.equal(plain, noise(_call(q_rows=2)))
    padded = noise(_call(q_rows=1, keys=69, mask=torch.arange(69)[None] >= 5))
    assert torch.equal(padded[0, :, 0, 5:], plain[0, :, 1])
    for other in ({"seed": 1}, {"example": 1}, {"layer": 1}, {"step": 1}):
        assert (noise(_call(q_rows=2, **other)) == plain).float().mean() < 0.01
    assert (plain[0, 0] == plain[0, 1]).float().mean() < 0.01
    assert float(plain.mean()) == pytest.approx(0.5, abs=0.05)


@pytest.mark.parametrize(
    ("size", "budget", "counts"),
    [
        (3, None, [0, 1, 3, 3]),
        (0, None, [0, 0, 0, 0]),
        (0.29, None, [0, 1, 1, 29]),  # 0.29 * 100 is 28.999... in binary
        (1.0, None, [0, 1, 5, 100]),
        ({"of_budget": 0.5}, 0.2, [0, 1, 1, 10]),
        ({"of_budget": 0.5, "at_least": 4, "at_most": 8}, 0.2, [0, 1, 1, 8]),
        ({"of_budget": 0.2, "at_least": 4}, 0.1, [0, 1, 1, 4]),
        ({"of_budget": 0.1, "at_least": 0}, 0.1, [0, 0, 0, 1]),
    ],
)
def test_sizes_of_rows_with_0_1_5_and_100_valid_keys(size, budget, counts):
    mask = torch.arange(100) >= torch.tensor([100, 99, 95, 0])[:, None]
    rows = Rows(4, 1, 100, CPU, mask)
    nothing = torch.zeros(1, 1, 1, dtype=torch.int64)
    assert row_tokens(size, rows, budget, nothing).flatten().tolist() == counts
    assert [most_tokens(size, n, budget) for n in (1, 5, 100)] == counts[1:]
    assert row_tokens(size, Rows(1, 1, 100, CPU), budget, nothing).item() == counts[3]


@pytest.mark.parametrize(
    ("size", "kept", "tokens"),
    [
        ({"of_budget": 0.5}, 0, 10),
        ({"of_budget": 0.5}, 8, 6),
        ({"of_budget": 0.5, "at_most": 4}, 8, 4),
        ({"of_budget": 0.5, "at_least": 9}, 8, 9),
        ({"of_budget": 0.5, "at_least": 9}, 15, 5),
        ({"of_budget": 0.5, "at_least": 9}, 20, 0),
        ({"of_budget": 1.0}, 25, 0),
        (7, 8, 7),
    ],
)
def test_a_share_of_the_budget_is_one_of_what_is_left_of_it(size, kept, tokens):
    assert row_tokens(size, Rows(1, 1, 100, CPU), 0.2, torch.full((1, 1, 1), kept)).item() == tokens


@pytest.mark.parametrize("name", ["oracle_top_k", "double_sparsity", "quest", "oracle_top_p"])
@pytest.mark.parametrize(("heads", "rows"), [(2, 1), (8, 1), (2, 3)])
def test_equal_keys_tie_whatever_they_are_computed_beside(name, heads, rows):
    fields = {"density": 0.2} if name != "oracle_top_p" else {"top_p": 0.5}
    fields |= {"quest": {"page_size": 4}, "double_sparsity": {"group_factor": 1, "label_bits": 4}}.get(name, {})
    noise = torch.Generator().manual_seed(3)
    q, one = torch.randn(4, heads, rows, 16, generator=noise), torch.randn(4, 2, 1, 16, generator=noise)
    k = one.expand(-1, -1, 37, -1).contiguous()
    kept = select(build_stack([{"name": name, **fields}]), q, k, k).probabilities() > 0
    for row in range(rows):
        num = 37 - (rows - 1 - row)
        found = kept[:, :, row, :num]
        if name == "oracle_top_p":
            assert bool(found.all())
        else:
            assert bool(found.any(-1).all())
            assert bool((found.int().diff(dim=-1) >= 0).all())  # the most recent ones


def test_shares_of_the_softmax_are_those_of_bounded_logits():
    noise = torch.Generator().manual_seed(0)
    q, k = (3 * torch.randn(1, 2, n, 8, generator=noise) for n in (1, 60))
    kept = {}
    for softcap in (None, 1.5):
        chosen = select(build_stack([{"name": "oracle_top_p", "top_p": 0.8}]), q, k, k, softcap=softcap)
        logits = (q @ k.transpose(-1, -2))[0, :, 0] * 8**-0.5
        logits = logits if softcap is None else softcap * (logits / softcap).tanh()
        shares = logits.softmax(-1).sort(dim=-1, descending=True).values.cumsum(-1)
        kept[softcap] = chosen.counts()[0, :, 0]
        assert torch.equal(kept[softcap], (shares < 0.8).sum(-1) + 1)
    assert (kept[1.5] > kept[None]).all()
