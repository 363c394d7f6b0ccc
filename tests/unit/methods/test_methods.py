"""Each method against its formula, written out key by key in plain Python."""

import math

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings

from sahub.attention.budgets import Size
from sahub.attention.call import Call, Geometry
from sahub.attention.choose import choose, exact_scores
from sahub.attention.rows import rows_of
from sahub.attention.selection import Selection
from sahub.attention.selector import Selector
from sahub.builders.build import build_stack, select

LAW = settings(max_examples=25, deadline=None, derandomize=True)
SCALE = 0.4


@st.composite
def rows(draw, holes=True):
    """One sequence, two heads over one KV head: q, k, v, validity with holes, and the position of every row."""
    keys = draw(st.integers(1, 40))
    num = draw(st.integers(1, min(keys, 4)))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    q, k, v = (torch.randn(1, h, n, 4, generator=noise) for h, n in ((2, num), (1, keys), (1, keys)))
    valid = draw(st.lists(st.booleans(), min_size=keys, max_size=keys)) if holes else [True] * keys
    return q, k, v, valid, range(keys - num, keys)


def seen(valid: list[bool], position: int) -> list[int]:
    return [j for j in range(position + 1) if valid[j]]


def tokens(size: Size, num_valid: int) -> int:
    return min(num_valid, size if isinstance(size, int) else max(1, math.floor(size * num_valid + 1e-6)))


def logits(q, k, head: int, row: int) -> list[float]:
    return [float(sum(a * b for a, b in zip(q[0, head, row].double(), key.double(), strict=True))) for key in k[0, 0]]


def check(stages, call, expected) -> None:
    """`expected(q, k, v, valid, position, head, row)` is the set of kept keys."""
    q, k, v, valid, positions = call
    mask = torch.tensor([valid])
    dense = select(build_stack(stages), q, k, v, mask=mask, scale=SCALE).probabilities()
    for row, position in enumerate(positions):
        for head in range(2):
            kept = {j for j, p in enumerate(dense[0, head, row].tolist()) if p == 1}
            assert kept == expected(q, k, v, valid, position, head, row), (head, row)


@LAW
@given(call=rows(), size=st.one_of(st.integers(0, 12), st.floats(0.05, 1.0)))
def test_sink_keeps_the_first_valid_keys(call, size):
    def expected(q, k, v, valid, position, head, row):
        keys = seen(valid, position)
        return set(keys[: tokens(size, len(keys))])

    check([{"name": "sink", "sink_size": size}], call, expected)


@LAW
@given(call=rows(), size=st.one_of(st.integers(0, 12), st.floats(0.05, 1.0)))
def test_local_keeps_the_last_valid_keys(call, size):
    def expected(q, k, v, valid, position, head, row):
        keys = seen(valid, position)
        return set(keys[len(keys) - tokens(size, len(keys)) :])

    check([{"name": "local", "window_size": size}], call, expected)


@LAW
@given(call=rows(), density=st.floats(0.05, 1.0), sinks=st.integers(0, 6))
def test_local_fills_up_to_a_density(call, density, sinks):
    def expected(q, k, v, valid, position, head, row):
        keys = seen(valid, position)
        kept = keys[:sinks]
        left = max(0, tokens(density, len(keys)) - len(kept))
        free = [j for j in keys if j not in kept]
        return set(kept) | set(free[len(free) - left :])

    check([{"name": "sink", "sink_size": sinks}, {"name": "local", "density": density}], call, expected)


@pytest.mark.parametrize("rank", ["score", "value_weighted"])
@LAW
@given(call=rows(), density=st.floats(0.05, 1.0), sinks=st.integers(0, 6))
def test_oracle_top_k_keeps_the_largest_scores(rank, call, density, sinks):
    def expected(q, k, v, valid, position, head, row):
        keys = seen(valid, position)
        z = [x * SCALE for x in logits(q, k, head, row)]
        if rank == "value_weighted":
            z = [math.exp(x) * float(v[0, 0, j].norm()) for j, x in enumerate(z)]
        kept = keys[:sinks]
        free = sorted((j for j in keys if j not in kept), key=lambda j: (-z[j], -j))
        return set(kept) | set(free[: max(0, tokens(density, len(keys)) - len(kept))])

    stages = [{"name": "sink", "sink_size": sinks}, {"name": "oracle_top_k", "density": density, "rank": rank}]
    check(stages, call, expected)


@pytest.mark.parametrize("mass", ["residual", "total"])
@LAW
@given(call=rows(), top_p=st.floats(0.0, 1.0), sinks=st.integers(0, 6))
def test_oracle_top_p_keeps_keys_until_the_mass_is_exceeded(mass, call, top_p, sinks):
    def expected(q, k, v, valid, position, head, row):
        keys = seen(valid, position)
        weight = [math.exp(x * SCALE) for x in logits(q, k, head, row)]
        kept = set(keys[:sinks])
        free = sorted((j for j in keys if j not in kept), key=lambda j: (-weight[j], -j))
        held = sum(weight[j] for j in kept) if mass == "total" else 0.0
        whole = held + sum(weight[j] for j in free)
        for j in free:
            if held > top_p * whole * (1 + 1e-12) and top_p < 1:
                break
            kept.add(j)
            held += weight[j]
        return kept

    stages = [{"name": "sink", "sink_size": sinks}, {"name": "oracle_top_p", "top_p": top_p, "mass": mass}]
    check(stages, call, expected)


def rounded_up(vector: list[float], bits: int) -> list[float]:
    low, high = min(vector), max(vector)
    step = (high - low) / (2**bits - 1)
    return [low + math.ceil(round((x - low) / step, 4)) * step for x in vector] if step else vector


@pytest.mark.parametrize("label_bits", [2, 4, 16])
@LAW
@given(call=rows(), size=st.integers(1, 20), page=st.sampled_from([1, 3, 4, 8]), sinks=st.integers(0, 6))
def test_quest_keeps_the_pages_of_the_highest_bounds(label_bits, call, size, page, sinks):
    def expected(q, k, v, valid, position, head, row):
        keys = seen(valid, position)
        kept = set(keys[:sinks])
        if not keys:
            return kept
        first, bounds = keys[0], {}
        for number, start in enumerate(range(first, position + 1, page)):
            inside = [j for j in range(start, min(start + page, position + 1)) if valid[j]]
            if not set(inside) - kept:
                continue
            columns = list(zip(*k[0, 0, inside].tolist(), strict=True))
            high, low = [max(c) for c in columns], [min(c) for c in columns]
            if start + page <= position + 1 and label_bits < 16:
                high = rounded_up(high, label_bits)
                low = [-x for x in rounded_up([-x for x in low], label_bits)]
            query = q[0, head, row].tolist()
            bounds[number] = (sum(max(a * h, a * lo) for a, h, lo in zip(query, high, low, strict=True)), inside)
        best = sorted(bounds, key=lambda n: (-bounds[n][0], -n))
        added = [j for n in best for j in reversed(bounds[n][1]) if j not in kept]
        return kept | set(added[:size])

    stages = [
        {"name": "sink", "sink_size": sinks},
        {"name": "quest", "heavy_size": size, "page_size": page, "label_bits": label_bits},
    ]
    check(stages, call, expected)


def test_quest_labels_stay_bounds_at_every_width():
    noise = torch.Generator().manual_seed(0)
    q, k = torch.randn(1, 2, 1, 16, generator=noise), torch.randn(1, 2, 64, 16, generator=noise)
    largest = (q @ k.transpose(-1, -2)).unflatten(-1, (8, 8)).amax(-1)
    for bits in range(1, 17):
        stack = build_stack([{"name": "quest", "density": 0.5, "page_size": 8, "label_bits": bits}])
        state = stack.new_state(layer=0)
        state.append(k, k)
        selection = state.select(q, k, k, scale=1.0)
        assert selection.counts().tolist() == [[[32], [32]]]
        index = state.indexes[0]
        bound = index.scores(_call(q, k, selection)).logits
        assert (bound >= largest - 1e-5).all()


def _call(q, k, selection):
    return Call(q=q, k=k, v=k, scale=1.0, rows=selection.rows)


@pytest.mark.parametrize("sinks", [0, 8, 15, 16, 20])
def test_quest_fills_its_budget_to_the_key(sinks):
    k = torch.randn(1, 1, 64, 4, generator=torch.Generator().manual_seed(0))
    stages = [{"name": "sink", "sink_size": sinks}, {"name": "quest", "density": 0.25, "page_size": 8}]
    kept = select(build_stack(stages), k[:, :, -1:], k, k).probabilities()[0, 0, 0] > 0
    assert kept[:sinks].all()
    assert int(kept.sum()) == max(sinks, 16)


def test_of_the_last_page_the_most_recent_keys_are_taken():
    k = torch.ones(1, 1, 64, 4) * torch.linspace(64, 1, 64)[:, None]
    stages = [{"name": "sink", "sink_size": 3}, {"name": "quest", "heavy_size": 8, "page_size": 8}]
    kept = select(build_stack(stages), torch.ones(1, 1, 1, 4), k, k).probabilities()[0, 0, 0] > 0
    assert kept.nonzero().flatten().tolist() == [*range(8), 13, 14, 15]


def test_quest_does_not_spend_on_pages_that_are_kept_whole():
    k = torch.ones(1, 1, 64, 4) * torch.linspace(64, 1, 64)[:, None]  # the first pages score best
    stages = [{"name": "sink", "sink_size": 16}, {"name": "quest", "heavy_size": 16, "page_size": 8}]
    kept = select(build_stack(stages), torch.ones(1, 1, 1, 4), k, k).probabilities()[0, 0, 0] > 0
    assert kept.nonzero().flatten().tolist() == list(range(32))


def test_quest_can_ask_for_more_pages_than_the_rest_holds():
    k = torch.randn(1, 1, 64, 4, generator=torch.Generator().manual_seed(0))
    stages = [{"name": "quest", "density": 0.05, "page_size": 8, "min_pages": 3}]
    assert select(build_stack(stages), k[:, :, -1:], k, k).counts().item() == 24


def test_a_sample_that_is_chosen_becomes_certain():
    k = torch.randn(1, 1, 16, 4, generator=torch.Generator().manual_seed(0))
    q = k[:, :, -1:]
    bare = Selection.none(rows_of(q, k, None), 1, 1)
    sampled = bare.of(torch.arange(16)[None, None, None], torch.full((1, 1, 1, 16), math.log(4)))
    call = Call(q=q, k=k, v=k, scale=1.0, rows=bare.rows)
    both = sampled.then(choose(call, sampled, exact_scores(call), Selector(heavy_size=3)))
    chances = both.probabilities().flatten()
    assert sorted(chances.tolist()) == pytest.approx([0.25] * 13 + [1.0] * 3)
    assert set(chances.topk(3).indices.tolist()) == set((q @ k.transpose(-1, -2)).flatten().topk(3).indices.tolist())


@pytest.mark.parametrize(
    ("stage", "bits"),
    [
        ({"name": "dense"}, 0),
        ({"name": "sink", "sink_size": 4}, 0),
        ({"name": "local", "window_size": 4}, 0),
        ({"name": "oracle_top_k", "density": 0.1}, 16 * 128),
        ({"name": "oracle_top_p", "top_p": 0.5}, 16 * 128),
        ({"name": "quest", "density": 0.1, "page_size": 16}, 2 * 128 * 16 / 16),
        ({"name": "quest", "density": 0.1, "page_size": 32, "label_bits": 4}, (2 * 128 * 4 + 64) / 32),
    ],
)
def test_aux_bits(stage, bits):
    stack = build_stack([{"name": "sink", "sink_size": 1}, stage])
    assert stack.aux_bits(Geometry(num_layers=2, num_heads=8, num_kv_heads=2, head_dim=128), 4096) == bits
