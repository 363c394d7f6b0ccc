"""Laws of budgets: more keeps more, all keeps all, and what is asked for is not exceeded."""

import hypothesis.strategies as st
import pytest
import torch
from hash_files import hash_fields
from hypothesis import given, settings

from sahub.attention.attend import attend
from sahub.attention.selection import Kind
from sahub.builders.build import build_stack, select

LAW = settings(max_examples=10, deadline=None, derandomize=True)
HASHES = hash_fields(heads=1, head_dim=8)
SMALL = {"quest": {"page_size": 4}, "double_sparsity": {"group_factor": 2}, "pqcache": {"pq_bits": 3}}
SMALL["hash_attention"] = HASHES
SINK, LOCAL = {"name": "sink", "sink_size": 2}, {"name": "local", "window_size": 3}


@st.composite
def calls(draw, max_keys=40):
    """Two sequences, the second one padded on the left: q of four heads, k and v of two, and the validity of keys."""
    keys = draw(st.integers(1, max_keys))
    rows = draw(st.integers(1, min(keys, 6)))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    q, k, v = (torch.randn(2, *shape, generator=noise) for shape in ((4, rows, 8), (2, keys, 8), (2, keys, 6)))
    return 2 * q, k, v, torch.arange(keys) >= torch.tensor([[0], [draw(st.integers(0, keys // 2))]])


def kept(selection):
    return selection.probabilities() > 0


BUDGETED = {
    "local": lambda x: [SINK, {"name": "local", "density": x}],
    "oracle_top_k": lambda x: [SINK, LOCAL, {"name": "oracle_top_k", "density": x}],
    "oracle_top_k value": lambda x: [{"name": "oracle_top_k", "density": x, "rank": "value_weighted"}],
    "oracle_top_p": lambda x: [SINK, {"name": "oracle_top_p", "top_p": x}],
    "oracle_top_p total": lambda x: [SINK, {"name": "oracle_top_p", "top_p": x, "mass": "total"}],
    "quest": lambda x: [SINK, LOCAL, {"name": "quest", "density": x, "page_size": 4, "label_bits": 4}],
    "quest top_p": lambda x: [SINK, {"name": "quest", "select": {"top_p": x}, "page_size": 4}],
    "random_sampling": lambda x: [SINK, LOCAL, {"name": "random_sampling", "density": x}],
    "socket": lambda x: [SINK, LOCAL, {"name": "socket", "density": x, "lsh_l": 3, "lsh_k": 4}],
    "double_sparsity": lambda x: [SINK, LOCAL, {"name": "double_sparsity", "density": x, "group_factor": 4}],
    "pqcache": lambda x: [SINK, LOCAL, {"name": "pqcache", "density": x, "pq_bits": 3}],
    "pqcache top_p": lambda x: [SINK, {"name": "pqcache", "select": {"top_p": x}, "pq_bits": 2, "metric": "ip"}],
    "hash_attention": lambda x: [SINK, LOCAL, {"name": "hash_attention", "density": x, **HASHES}],
    "snapkv": lambda x: [SINK, LOCAL, {"name": "snapkv", "density": x, "window_size": 3}],
    "tova": lambda x: [SINK, LOCAL, {"name": "tova", "density": x, "window_size": 3}],
    "expected_attention": lambda x: [SINK, {"name": "expected_attention", "density": x, "window_size": 3}],
    "sink": lambda x: [{"name": "sink", "sink_size": x}],
    "window": lambda x: [{"name": "local", "window_size": x}],
}
BOUNDED = {
    "quest": {"select": {"top_p": 0.99}, "page_size": 4},
    "pqcache": {"select": {"top_p": 0.99}, "pq_bits": 2},
    "double_sparsity": {"select": {"threshold": -5.0}, "group_factor": 4},
}
every_budget = pytest.mark.parametrize("stages_at", BUDGETED.values(), ids=BUDGETED.keys())


@every_budget
@settings(LAW, max_examples=25)
@given(call=calls(), shares=st.tuples(st.floats(0.01, 1.0), st.floats(0.01, 1.0)))
def test_a_larger_budget_keeps_a_superset(stages_at, call, shares):
    q, k, v, mask = call
    less, more = (kept(select(build_stack(stages_at(x)), q, k, v, mask=mask)) for x in sorted(shares))
    assert not (less & ~more).any()


@every_budget
@LAW
@given(call=calls())
def test_the_whole_budget_is_dense_attention(stages_at, call):
    q, k, v, mask = call
    selection = select(build_stack(stages_at(1.0)), q, k, v, mask=mask)
    everything = select(build_stack([{"name": "dense"}]), q, k, v, mask=mask)
    assert everything.kind is Kind.ALL
    assert torch.equal(kept(selection), kept(everything))
    torch.testing.assert_close(attend(q, k, v, selection), attend(q, k, v, everything), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    "name",
    [
        "local",
        "oracle_top_k",
        "oracle_top_k value",
        "quest",
        "random_sampling",
        "socket",
        "double_sparsity",
        "pqcache",
        "hash_attention",
        "snapkv",
        "tova",
        "expected_attention",
    ],
)
@settings(LAW, max_examples=40)
@given(call=calls(max_keys=90), density=st.floats(0.02, 1.0))
def test_the_budget_is_filled_to_the_key_and_never_exceeded(name, call, density):
    q, k, v, mask = call
    selection = select(build_stack(BUDGETED[name](density)), q, k, v, mask=mask)
    alone = select(build_stack(BUDGETED[name](density)[:-1] or [{"name": "sink", "sink_size": 0}]), q, k, v, mask=mask)
    asked = (density * selection.rows.counts + 1e-6).floor().clamp(min=1)[:, None]
    asked = torch.minimum(asked, selection.rows.counts[:, None])
    assert torch.equal(selection.counts(), torch.maximum(asked, alone.counts()).long())


@pytest.mark.parametrize("name", [*BOUNDED, "adaptive_sampling"])
@settings(LAW, max_examples=40)
@given(call=calls(max_keys=90), density=st.floats(0.02, 1.0), shares=st.tuples(st.floats(0.01, 1), st.floats(0.01, 1)))
def test_a_bound_holds_whatever_the_shares_before_it(name, call, density, shares):
    q, k, v, mask = call
    sizes = [{"of_budget": share, "at_least": 3} for share in shares]
    last = {"name": name, **BOUNDED.get(name, {})}
    if name == "adaptive_sampling":
        last |= {"max_density": density, "base_rate_sampling": {"of_budget": 0.5}}
    else:
        last["select"] = {**last["select"], "max_density": density}
    stages = [{"name": "sink", "sink_size": sizes[0]}, {"name": "local", "window_size": sizes[1]}, last]
    selection = select(build_stack(stages), q, k, v, mask=mask)
    assert (selection.counts() <= (density * selection.rows.counts + 1e-6).floor().clamp(min=1)[:, None]).all()


@pytest.mark.parametrize(
    "name", ["sink", "window", "oracle_top_k", "quest", "double_sparsity", "pqcache", "hash_attention"]
)
@LAW
@given(call=calls())
def test_sizes_above_the_number_of_keys_keep_them_all(name, call):
    q, k, v, mask = call
    fields = {"sink": "sink_size", "window": "window_size"}
    stage = {"name": "local" if name == "window" else name, fields.get(name, "heavy_size"): 1000, **SMALL.get(name, {})}
    dense = kept(select(build_stack([stage]), q, k, v, mask=mask))
    assert torch.equal(dense, kept(select(build_stack([{"name": "dense"}]), q, k, v, mask=mask)))


@pytest.mark.parametrize("name", ["oracle_top_k", "quest", "double_sparsity", "pqcache", "hash_attention"])
def test_equal_scores_go_to_the_most_recent_keys(name):
    q, k = torch.ones(1, 2, 1, 8), torch.ones(1, 1, 40, 8)
    stage = {"name": name, "heavy_size": 8, **SMALL.get(name, {})}
    dense = kept(select(build_stack([stage]), q, k, k))
    assert torch.equal(dense, (torch.arange(40) >= 32).expand_as(dense))
