"""Laws that every method obeys, alone and in the stacks of conf/builder: what a new method gets tested by for free."""

from itertools import pairwise
from pathlib import Path

import hypothesis.strategies as st
import pytest
import torch
from hash_files import hash_fields
from hypothesis import assume, given, settings
from omegaconf import OmegaConf

from sahub import methods
from sahub.attention.attend import attend
from sahub.attention.shared import SharedPrefix
from sahub.builders.build import build_stack, method_names, select

BUDGET = 0.3
SINK, LOCAL = {"name": "sink", "sink_size": 2}, {"name": "local", "window_size": 3}
HASHES = hash_fields(heads=1, head_dim=8)  # one function for all heads: what they are does not depend on the call's
METHODS = {  # at least one stack for each method, the corners of its fields included
    "dense": [[{"name": "dense"}]],
    "sink": [[{"name": "sink", "sink_size": 3}], [{"name": "sink", "sink_size": 0.2}]],
    "local": [[LOCAL], [SINK, {"name": "local", "density": BUDGET}]],
    "oracle_top_k": [
        [{"name": "oracle_top_k", "density": BUDGET}],
        [SINK, LOCAL, {"name": "oracle_top_k", "heavy_size": 4, "rank": "value_weighted"}],
        [SINK, {"name": "oracle_top_k", "density": BUDGET}, {"name": "local", "density": 0.5}],
    ],
    "oracle_top_p": [
        [SINK, {"name": "oracle_top_p", "top_p": 0.6}],
        [LOCAL, {"name": "oracle_top_p", "top_p": 0.8, "mass": "total"}],
    ],
    "quest": [
        [{"name": "quest", "density": BUDGET, "page_size": 4}],
        [SINK, LOCAL, {"name": "quest", "heavy_size": 6, "page_size": 3, "label_bits": 2}],
        [LOCAL, {"name": "quest", "select": {"top_p": 0.5}, "page_size": 4, "label_bits": 4}],
        [SINK, {"name": "quest", "density": BUDGET, "page_size": 1}],
        [SINK, LOCAL, {"name": "quest", "density": BUDGET, "page_size": 3, "group": "sum"}],
    ],
    "double_sparsity": [
        [{"name": "double_sparsity", "density": BUDGET, "group_factor": 2}],
        [SINK, LOCAL, {"name": "double_sparsity", "heavy_size": 6, "group_factor": 4, "label_bits": 16}],
        [
            {"name": "double_sparsity", "density": 0.2, "group_factor": 2, "group": "max"},
            {"name": "local", "density": BUDGET},
            {"name": "adaptive_sampling", "base_rate_sampling": 3, "epsilon": 0.2, "mode": "output"},
        ],
        [LOCAL, {"name": "double_sparsity", "select": {"top_p": 0.5}, "group_factor": 1, "label_bits": 3}],
    ],
    "pqcache": [
        [{"name": "pqcache", "density": BUDGET, "pq_group_factor": 2, "pq_bits": 3}],
        [SINK, LOCAL, {"name": "pqcache", "heavy_size": 6, "pq_group_factor": 4, "pq_bits": 2, "metric": "ip"}],
        [LOCAL, {"name": "pqcache", "select": {"top_p": 0.5}, "pq_group_factor": 1, "pq_bits": 5, "kmeans_iter": 0}],
    ],
    "hash_attention": [
        [{"name": "hash_attention", "density": BUDGET, **HASHES}],
        [SINK, LOCAL, {"name": "hash_attention", "heavy_size": 6, **HASHES}],
        [LOCAL, {"name": "hash_attention", "select": {"threshold": 2}, **HASHES}],
    ],
    "snapkv": [
        [{"name": "snapkv", "density": BUDGET}],
        [SINK, LOCAL, {"name": "snapkv", "heavy_size": 6, "window_size": 2, "kernel_size": 3, "pooling": "max"}],
        [LOCAL, {"name": "snapkv", "density": BUDGET, "window_size": 2, "group": "max"}],
    ],
    "tova": [
        [{"name": "tova", "density": BUDGET}],
        [SINK, LOCAL, {"name": "tova", "heavy_size": 6, "window_size": 2}],
    ],
    "expected_attention": [
        [{"name": "expected_attention", "density": BUDGET}],
        [SINK, LOCAL, {"name": "expected_attention", "heavy_size": 6, "window_size": 2, "rank": "score"}],
        [SINK, {"name": "expected_attention", "density": BUDGET, "window_size": 2, "group": "sum"}],
    ],
    "random_sampling": [
        [{"name": "random_sampling", "sampling_rate": BUDGET}],
        [SINK, LOCAL, {"name": "random_sampling", "density": BUDGET}],
    ],
    "adaptive_sampling": [
        [SINK, {"name": "adaptive_sampling", "base_rate_sampling": 0.1, "epsilon": 0.3, "delta": 0.3}],
        [
            LOCAL,
            {"name": "oracle_top_k", "heavy_size": 2},
            {"name": "adaptive_sampling", "base_rate_sampling": 3, "epsilon": 0.2, "mode": "numerator"},
        ],
        [LOCAL, {"name": "adaptive_sampling", "epsilon": 0.2, "mode": "output", "max_density": 0.5}],
    ],
    "magic_pig": [
        [LOCAL, {"name": "magic_pig", "lsh_l": 10, "lsh_k": 3}],
        [SINK, LOCAL, {"name": "magic_pig", "lsh_l": 5, "lsh_k": 2, "min_hits": 1, "transform": "simple_lsh"}],
        [LOCAL, {"name": "magic_pig", "lsh_l": 5, "lsh_k": 2, "min_hits": 3, "center": "none"}],
    ],
    "socket": [
        [{"name": "socket", "density": BUDGET, "lsh_l": 4, "lsh_k": 5}],
        [SINK, LOCAL, {"name": "socket", "heavy_size": 4, "lsh_l": 3, "lsh_k": 2, "tau": 0.1}],
        [SINK, {"name": "socket", "select": {"top_p": 0.5}, "lsh_l": 4, "lsh_k": 4}],
    ],
}


def builders() -> dict[str, dict]:
    """The stages of every builder in conf/, at this file's budget."""
    found = {}
    for path in sorted({*Path("conf/builder").glob("*.yaml")} - {Path("conf/builder/compose.yaml")}):
        objective = {"budget": BUDGET, "budget_max": BUDGET, "budget_search": {}}
        config = OmegaConf.merge(OmegaConf.load(path), {"objective": objective})
        found[path.stem] = OmegaConf.to_container(config, resolve=True)["stages"]
        found[path.stem].get("hash_attention", {}).update(HASHES)  # has no weights of its own
    return found


def chooses_together(stages):
    """Whether query heads that share a KV head choose together: they are no heads of their own then."""
    fields = stages if isinstance(stages, list) else stages.values()
    return any(stage.get("group", "none") != "none" for stage in fields)


CASES = {
    **{f"{name}-{i}": stages for name, stacks in METHODS.items() for i, stages in enumerate(stacks)},
    **{f"conf/{name}": stages for name, stages in builders().items()},
}
LAW = settings(max_examples=10, deadline=None, derandomize=True)
BY_HEAD = {name: stages for name, stages in CASES.items() if not chooses_together(stages)}
every_stack = pytest.mark.parametrize("stages", CASES.values(), ids=CASES.keys())


@st.composite
def calls(draw, max_keys=40):
    """q, k, v and left padding per sequence; MHA, GQA and MQA, one row or several."""
    batch, kv_heads, group = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2])), draw(st.sampled_from([1, 2, 3]))
    keys = draw(st.integers(1, max_keys))
    rows = draw(st.integers(1, min(keys, 6)))
    pads = draw(st.lists(st.integers(0, keys // 2), min_size=batch, max_size=batch))
    noise = torch.Generator().manual_seed(draw(st.integers(0, 2**16)))
    q = torch.randn(batch, kv_heads * group, rows, 8, generator=noise) * 2
    k, v = (torch.randn(batch, kv_heads, keys, width, generator=noise) for width in (8, 6))
    return q, k, v, torch.arange(keys) >= torch.tensor(pads)[:, None]


def kept(selection):
    return selection.probabilities() > 0


def draws_by_head(stages):
    """Whether each head has random numbers of its own."""
    named = stages if isinstance(stages, list) else [{"name": label} for label in stages]
    return any(stage["name"] in {"random_sampling", "adaptive_sampling"} for stage in named)


def stack_of(stages):
    return build_stack(stages, density=BUDGET)


def test_every_method_is_here():
    packaged = {file.stem for file in Path(methods.__file__).parent.glob("[a-z]*.py")}
    assert packaged == set(METHODS)
    assert packaged <= set(method_names())


def grown(stages, k, v, mask, prefix, data=None):
    """A state whose prefix ends after `prefix` keys, fed in chunks."""
    state = stack_of(stages).new_state(layer=0)
    drawn = data.draw(st.lists(st.integers(0, k.shape[2]), max_size=4)) if data else []
    for start, end in pairwise(sorted({0, prefix, k.shape[2], *drawn})):
        if start == prefix:
            state.freeze()
        state.append(k[:, :, start:end], v[:, :, start:end], mask[:, start:end])
    if prefix == k.shape[2]:
        state.freeze()
    return state


@every_stack
@LAW
@given(call=calls(), data=st.data())
def test_chunks_of_keys_make_the_same_state_as_all_at_once(stages, call, data):
    q, k, v, mask = call
    state = grown(stages, k, v, mask, k.shape[2] - q.shape[2], data)
    assert torch.equal(kept(state.select(q, k, v)), kept(select(stack_of(stages), q, k, v, mask=mask)))


@every_stack
@LAW
@given(call=calls())
def test_rows_together_select_what_they_select_one_by_one(stages, call):
    q, k, v, mask = call
    together = kept(select(stack_of(stages), q, k, v, mask=mask))
    prefix = k.shape[2] - q.shape[2]
    state = stack_of(stages).new_state(layer=0)
    state.append(k[:, :, :prefix], v[:, :, :prefix], mask[:, :prefix])
    state.freeze()
    for row in range(q.shape[2]):
        end = prefix + row + 1
        state.append(k[:, :, end - 1 : end], v[:, :, end - 1 : end], mask[:, end - 1 : end])
        alone = state.select(q[:, :, row, None], k[:, :, :end], v[:, :, :end])
        assert torch.equal(together[:, :, row, :end], kept(alone)[:, :, 0])
        assert not together[:, :, row, end:].any()


@every_stack
@LAW
@given(call=calls())
def test_only_valid_keys_each_once_and_at_least_one(stages, call):
    q, k, v, mask = call
    selection = select(stack_of(stages), q, k, v, mask=mask).check()
    visible = mask[:, None] & (torch.arange(k.shape[2]) <= torch.arange(k.shape[2] - q.shape[2], k.shape[2])[:, None])
    dense = kept(selection)
    assert not (dense & ~visible[:, None]).any()
    assert torch.equal(selection.counts(), dense.sum(-1))
    share = dense.sum(-1)[visible.any(-1)[:, None].expand_as(selection.counts())].double()
    valid = visible.sum(-1)[:, None].expand_as(selection.counts())[
        visible.any(-1)[:, None].expand_as(selection.counts())
    ]
    assert float(selection.density()) == pytest.approx(float((share / valid).mean()))
    union = dense.unflatten(1, (k.shape[1], -1)).any(2).sum(-1).double() / visible.sum(-1).clamp(min=1)[:, None]
    assert float(selection.kv_density()) == pytest.approx(float(union.sum() / (visible.any(-1).sum() * k.shape[1])))


@every_stack
@LAW
@given(call=calls())
def test_a_row_mask_that_says_the_same_selects_the_same(stages, call):
    q, k, v, mask = call
    last = torch.arange(k.shape[2] - q.shape[2], k.shape[2])
    rowwise = (mask[:, None] & (torch.arange(k.shape[2]) <= last[:, None]))[:, None]
    state = grown(stages, k, v, mask, k.shape[2] - q.shape[2])
    assert torch.equal(kept(state.select(q, k, v, mask=rowwise)), kept(state.select(q, k, v)))


@every_stack
@LAW
@given(call=calls())
def test_a_prefix_that_did_not_end_ends_before_the_rows(stages, call):
    q, k, v, mask = call
    state = stack_of(stages).new_state(layer=0)
    state.append(k, v, mask)
    assert torch.equal(kept(state.select(q, k, v)), kept(select(stack_of(stages), q, k, v, mask=mask)))


@pytest.mark.parametrize("stages", BY_HEAD.values(), ids=BY_HEAD.keys())
@LAW
@given(call=calls())
def test_grouped_heads_agree_with_expanded_heads(stages, call):
    q, k, v, mask = call
    group = q.shape[1] // k.shape[1]
    wide = [x.repeat_interleave(group, dim=1) for x in (k, v)]
    stack = stack_of(stages)
    first, second = select(stack, q, k, v, mask=mask), select(stack, q, *wide, mask=mask)
    assert torch.equal(kept(first), kept(second))
    torch.testing.assert_close(attend(q, k, v, first), attend(q, *wide, second))


@every_stack
@LAW
@given(call=calls())
def test_padding_and_batch_mates_change_nothing(stages, call):
    q, k, v, mask = call
    together = kept(select(stack_of(stages), q, k, v, mask=mask))
    for b in range(q.shape[0]):
        pad = int((~mask[b]).sum())
        own = slice(pad, None)
        rows = slice(max(0, q.shape[2] - int(mask[b].sum())), None)  # rows that are no padding
        alone = select(stack_of(stages), q[b, None, :, rows], k[b, None, :, own], v[b, None, :, own])
        assert torch.equal(together[b, :, rows, own], kept(alone)[0])


@every_stack
@LAW
@given(call=calls(), data=st.data())
def test_truncate_and_fork_bring_the_old_state_back(stages, call, data):
    q, k, v, mask = call
    length = data.draw(st.integers(1, k.shape[2]))
    state = stack_of(stages).new_state(layer=0)
    state.append(k[:, :, :length], v[:, :, :length], mask[:, :length])
    state.freeze()
    twin, q_then = state.fork(), q[:, :, -1:]
    before = kept(state.select(q_then, k[:, :, :length], v[:, :, :length]))
    state.append(k[:, :, length:], v[:, :, length:], mask[:, length:])
    after = kept(state.select(q, k, v))
    assert torch.equal(kept(twin.select(q_then, k[:, :, :length], v[:, :, :length])), before)
    state.truncate(length, k, v, mask)
    assert state.length == length
    assert torch.equal(kept(state.select(q_then, k[:, :, :length], v[:, :, :length])), before)
    for again in (state, twin):
        again.append(k[:, :, length:], v[:, :, length:], mask[:, length:])
        assert torch.equal(kept(again.select(q, k, v)), after)


@every_stack
@LAW
@given(call=calls())
def test_gather_equals_reference(stages, call):
    q, k, v, mask = call
    selection = select(stack_of(stages), q, k, v, mask=mask)
    gathered, dense = (attend(q, k, v, selection, mask=mask, backend=b) for b in ("gather", "reference"))
    torch.testing.assert_close(gathered, dense, atol=1e-5, rtol=1e-5)
    assert gathered.shape == (q.shape[0], q.shape[2], q.shape[1], v.shape[3])


@every_stack
@LAW
@given(call=calls(max_keys=30), dtype=st.sampled_from([torch.bfloat16, torch.float16]))
def test_half_precision_inputs_select_what_their_fp32_values_do(stages, call, dtype):
    q, k, v, mask = call
    half = [x.to(dtype) for x in (q, k, v)]
    stack = stack_of(stages)
    selection = select(stack, *half, mask=mask)
    assert torch.equal(kept(selection), kept(select(stack, *(x.float() for x in half), mask=mask)))
    out = attend(*half, selection)
    assert out.dtype == dtype
    torch.testing.assert_close(out, attend(*(x.float() for x in half), selection).to(dtype))


@every_stack
@LAW
@given(call=calls())
def test_permuting_heads_permutes_the_result_and_inputs_stay_as_they_are(stages, call):
    q, k, v, mask = call
    before = [x.clone() for x in (q, k, v, mask)]
    dense = kept(select(stack_of(stages), q, k, v, mask=mask))
    order = torch.arange(k.shape[1]).flip(0)
    grouped = q.unflatten(1, (k.shape[1], -1))
    swapped = kept(select(stack_of(stages), grouped[:, order].flatten(1, 2), k[:, order], v[:, order], mask=mask))
    if not draws_by_head(stages):
        assert torch.equal(swapped, dense.unflatten(1, (k.shape[1], -1))[:, order].flatten(1, 2))
    assert all(torch.equal(x, y) for x, y in zip(before, (q, k, v, mask), strict=True))


@every_stack
@settings(max_examples=4, deadline=None, derandomize=True)
@given(call=calls())
def test_scores_in_fp32_that_are_settled_select_the_same(stages, call):
    q, k, v, mask = call
    k = k.clone()
    k[:, :, 1::3] = k[:, :, ::3][:, :, : k[:, :, 1::3].shape[2]]  # some that tie
    exact = kept(select(stack_of(stages), q, k, v, mask=mask))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sahub.attention.products.SMALL", 0)
        patch.setattr("sahub.attention.selectors._MANY", 8)
        assert torch.equal(kept(select(stack_of(stages), q, k, v, mask=mask)), exact)


@every_stack
@LAW
@given(call=calls())
def test_a_device_that_must_not_be_waited_for_selects_the_same(stages, call):
    q, k, v, mask = call
    here = select(stack_of(stages), q, k, v, mask=mask)
    with pytest.MonkeyPatch.context() as patch:
        for module in ("rows", "selection", "selectors"):
            patch.setattr(f"sahub.attention.{module}.free_to_read", lambda _: False)
        there = select(stack_of(stages), q, k, v, mask=mask)
        assert torch.equal(kept(here), kept(there))
        assert torch.equal(here.counts(), there.counts())
        assert float(here.kv_density()) == pytest.approx(float(there.kv_density()))
        torch.testing.assert_close(attend(q, k, v, here), attend(q, k, v, there), atol=1e-5, rtol=1e-5)


@every_stack
@settings(max_examples=2, deadline=None, derandomize=True)
@given(call=calls(), sequences=st.integers(2, 3))
def test_sequences_that_share_a_prefix_choose_what_each_alone_does(stages, call, sequences):
    q, k, v, _ = call
    end, length = k.shape[2], k.shape[2] - q.shape[2]
    assume(length > 0)
    turns = torch.arange(sequences)[:, None, None, None]  # questions of their own
    q, k, v = (x[:1].expand(sequences, -1, -1, -1) * (1 - 2 * turns) for x in (q, k, v))
    k[:, :, :length], v[:, :, :length] = k[:1, :, :length], v[:1, :, :length]
    state = stack_of(stages).new_state(layer=0)
    state.append(k[:1, :, :length], v[:1, :, :length])
    state.freeze()
    state, some = state.take(torch.zeros(sequences).long()), length + q.shape[2] // 2
    left = torch.arange(sequences)
    for begin, until in ((length, some), (some, end)):
        if begin == until:
            continue
        if begin > length:  # the first has come to its end
            state, left = state.take(left[1:]), left[1:]
        state.append(k[left, :, begin:until], v[left, :, begin:until])
        keys, values = (shared_of(x[left, :, :until], length) for x in (k, v))
        asked = q[left, :, begin - length : until - length]
        selection = state.select(asked, keys, values)
        out = attend(asked, keys, values, selection)
        for place, one in enumerate(left[:, None]):
            whole = q[one, :, : until - length], k[one, :, :until], v[one, :, :until]
            alone = select(stack_of(stages), *whole)
            assert torch.equal(kept(selection)[place], kept(alone)[0, :, begin - length :])
            torch.testing.assert_close(out[place], attend(*whole, alone)[0, begin - length :], atol=1e-5, rtol=1e-5)


def shared_of(whole, length):
    """The same keys with the first `length` of them, which are equal, held once."""
    batch, heads, end, width = whole.shape
    memory = torch.full((1, heads, length + 9 * batch, width), float("nan"))
    shared = SharedPrefix(memory, length, batch=batch, room=9, used=end - length)
    memory[:, :, :length], shared.tails[:] = whole[:1, :, :length], whole[:, :, length:]
    return shared
