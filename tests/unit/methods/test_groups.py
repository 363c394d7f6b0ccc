"""Query heads that share a KV head and choose together: one selection for all of them, or the union of their own."""

import pytest
import torch
from hash_files import hash_fields

from sahub.attention.attend import attend
from sahub.builders.build import build_stack
from sahub.errors import ConfigError

HEADS, KV_HEADS, DIM, KEYS, ROWS, NUM = 6, 2, 8, 60, 3, 9
SINK, LOCAL = {"name": "sink", "sink_size": 2}, {"name": "local", "window_size": 3}
STAGES = {
    "quest": {"page_size": 4},
    "double_sparsity": {"group_factor": 2},
    "pqcache": {"pq_bits": 3},
    "hash_attention": hash_fields(heads=HEADS, head_dim=DIM),
    "socket": {"lsh_l": 4, "lsh_k": 4},
    "snapkv": {"window_size": 2},
    "expected_attention": {"window_size": 2},
}
every_method = pytest.mark.parametrize("name", STAGES)


def inputs():
    noise = torch.Generator().manual_seed(3)
    q = torch.randn(1, HEADS, ROWS, DIM, generator=noise) * 2
    return q, *(torch.randn(1, KV_HEADS, KEYS, DIM, generator=noise) for _ in range(2))


def chosen(name, group, *earlier):
    """What the stage keeps with `group` after earlier ones, for the rows one by one: the last with its state."""
    stage = {"name": name, **STAGES[name], "heavy_size": NUM, "group": group}
    state = build_stack([*earlier, stage]).new_state(layer=0)
    q, k, v = inputs()
    state.append(k[:, :, : KEYS - ROWS], v[:, :, : KEYS - ROWS])
    state.freeze()
    found = []
    for row in range(ROWS):
        end = KEYS - ROWS + row + 1
        state.append(k[:, :, end - 1 : end], v[:, :, end - 1 : end])
        found.append(state.select(q[:, :, row : row + 1], k[:, :, :end], v[:, :, :end]))
    return found


def kept(selection):
    return (selection.probabilities() > 0)[0, :, 0].unflatten(0, (KV_HEADS, -1))


@every_method
@pytest.mark.parametrize("group", ["sum", "max"])
@pytest.mark.parametrize("earlier", [[], [SINK, LOCAL]], ids=["alone", "after a window"])
def test_heads_choose_the_same_keys_as_many_as_one_of_them(name, group, earlier):
    for selection in chosen(name, group, *earlier):
        mask = kept(selection)
        assert torch.equal(mask, mask[:, :1].expand_as(mask))
        assert set(mask.sum(-1).flatten().tolist()) == {NUM + (5 if earlier else 0)}
        assert selection.slots.shape[1] == KV_HEADS  # read once for all of them
        assert selection.density() == selection.kv_density()


@every_method
def test_a_union_is_what_any_head_chose(name):
    for alone, together in zip(chosen(name, "none", SINK), chosen(name, "union", SINK), strict=True):
        assert torch.equal(kept(together), kept(alone).any(1, keepdim=True).expand(-1, HEADS // KV_HEADS, -1))
        assert together.kv_density() == alone.kv_density()


@every_method
def test_attention_to_shared_keys_is_that_of_each_head(name):
    q, k, v = inputs()
    selection = chosen(name, "max", SINK)[-1]
    call = q[:, :, -1:], k, v, selection
    torch.testing.assert_close(attend(*call), attend(*call, backend="reference"), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("group", ["sum", "max"])
def test_heads_that_took_other_keys_before_still_choose_by_one_score(group):
    earlier = {"name": "oracle_top_k", "heavy_size": 4}
    for before, selection in zip(chosen_before(earlier), chosen("double_sparsity", group, earlier), strict=True):
        mask, taken = kept(selection), kept(before)
        assert set(mask.sum(-1).flatten().tolist()) == {NUM + 4}
        assert not (taken & ~mask).any()


def chosen_before(stage):
    """What a stage keeps alone, row by row."""
    q, k, v = inputs()
    for row in range(ROWS):
        state = build_stack([stage]).new_state(layer=0)
        end = KEYS - ROWS + row + 1
        state.append(k[:, :, :end], v[:, :, :end])
        yield state.select(q[:, :, row : row + 1], k[:, :, :end], v[:, :, :end])


@every_method
def test_another_word_is_refused(name):
    with pytest.raises(ConfigError, match=r"group=both: must be one of none, union, sum, max"):
        build_stack([{"name": name, **STAGES[name], "heavy_size": NUM, "group": "both"}])
