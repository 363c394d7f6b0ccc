"""A timed step is the step that a model takes, on a cache of the length that was asked, and its parts are all of it."""

from itertools import count

import pytest
import torch
from families import tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.attention.stack import StackState
from sahub.builders.build import build_stack
from sahub.engine.call_stats import Inputs
from sahub.engine.contexts.cache import BufferLayer
from sahub.engine.model import wrap_model
from sahub.engine.routing import attached
from sahub.errors import SparseNeverRan
from sahub.timing import filled as filling
from sahub.timing import measure
from sahub.timing.measure import measured
from sahub.timing.step import PLAIN, Parts, Timed, plainly, sparse_step

QUEST = build_stack([{"name": "sink", "sink_size": 4}, {"name": "quest", "density": 0.25, "page_size": 8}])
SNAPKV = build_stack([{"name": "snapkv", "density": 0.25, "window_size": 8}])


@pytest.fixture(scope="module")
def model(make_model, tokenizer):
    return wrap_model(make_model(), tokenizer, name="tiny")


@settings(max_examples=40)
@given(
    heads=st.sampled_from([(1, 1), (4, 1), (6, 3)]),
    keys=st.integers(1, 40),
    dim=st.sampled_from([8, 16]),
    softcap=st.sampled_from([None, 2.0]),
    has_sinks=st.booleans(),
)
def test_each_way_to_attend_to_everything_is_dense_attention(heads, keys, dim, softcap, has_sinks):
    noise = torch.Generator().manual_seed(keys)
    q, k, v = (torch.randn(1, number, rows, dim, generator=noise) for number, rows in zip(
        (heads[0], heads[1], heads[1]), (1, keys, keys), strict=True
    ))  # fmt: skip
    sinks = torch.randn(heads[0], generator=noise) if has_sinks else None
    call = Inputs(query=q, key=k, value=v, mask=None, scale=0.3, softcap=softcap, sinks=sinks)
    for way in PLAIN.values():
        torch.testing.assert_close(plainly(way)(call), call.dense())


def test_every_tick_of_the_clock_is_in_one_part():
    ticks, noise = count(), torch.Generator().manual_seed(0)
    k, v = torch.randn(2, 1, 2, 33, 16, generator=noise)
    state = QUEST.new_state(layer=0)
    state.append(k[:, :, :32], v[:, :, :32])
    call = Inputs(query=torch.randn(1, 4, 1, 16, generator=noise), key=k, value=v, mask=None, scale=0.25)
    output, selection, parts = sparse_step(state, call, lambda: float(next(ticks)))
    assert (parts, parts.total) == (Parts(append=1.0, select=1.0, attend=1.0), 3.0)
    assert state.length == 33
    torch.testing.assert_close(output, call.sparse(selection))


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt_oss", "gemma4", "qwen3_next", "falcon_h1"])
def test_a_timed_step_says_what_the_model_says(family, make_model, tokenizer):
    hf = make_model() if family == "llama" else tiny(family)
    model = wrap_model(hf, tokenizer, name="tiny")
    prefix = filling.filled(model, 600, room=4, seed=0)
    token = torch.tensor([[7]])

    def logits():
        prefix.rewind()
        with torch.inference_mode():
            return model.hf(input_ids=token, past_key_values=prefix.cache, use_cache=True).logits

    own = logits()
    for way in PLAIN.values():
        timed = Timed(way=plainly(way), clock=lambda: 0.0)
        with attached(model.hf, timed):
            torch.testing.assert_close(logits(), own, rtol=1e-4, atol=1e-3)
        assert timed.calls == len(model.geometry.layers)
    lengths = {one.get_seq_length() for one in prefix.cache.layers if isinstance(one, BufferLayer)}
    assert lengths == {601}


def test_a_cache_holds_a_text_and_then_keys_like_it(model, monkeypatch):
    short = filling.filled(model, 100, room=2, seed=0)
    monkeypatch.setattr(filling, "TEXT", 100)
    long = filling.filled(model, 4000, room=2, seed=0)
    for layer in model.geometry.layers:
        for text, held in zip(short.keys_values(layer), long.keys_values(layer), strict=True):
            torch.testing.assert_close(held[:, :, :100], text)
            drawn = held[:, :, 100:]
            assert drawn.shape[2] == 3900
            assert float((drawn.mean(2) - text.mean(2)).abs().max() / text.std()) < 0.2
            torch.testing.assert_close(drawn.std(2), text.std(2), rtol=0.1, atol=0.01)
    again = filling.filled(model, 4000, room=2, seed=0)
    assert torch.equal(again.keys_values(0)[0], long.keys_values(0)[0])


def test_stacks_are_measured_beside_dense(model):
    dense, quest, snapkv, *longer = measured(model, [256, 320], {"quest": QUEST, "snapkv": SNAPKV}, rounds=2)
    assert [(one.name, one.length) for one in longer] == [("dense", 320), ("quest", 320), ("snapkv", 320)]
    assert [dense.name, quest.name, snapkv.name] == ["dense", "quest", "snapkv"]
    assert (dense.density, dense.kv_density, dense.aux_bits, dense.against_dense) == (1.0, 1.0, 0.0, 1.0)
    shape = model.geometry
    key_bytes = 2 * shape.head_dim * 4
    assert dense.bytes_read == shape.num_layers * shape.num_kv_heads * 256 * key_bytes
    for one in (quest, snapkv):
        assert one.density == pytest.approx(0.25, abs=0.02)
        assert one.density <= one.kv_density <= 0.5
        per_head = 256 * (one.kv_density * key_bytes + one.aux_bits / 8)
        assert one.bytes_read == pytest.approx(shape.num_layers * shape.num_kv_heads * per_head)
        assert all(seconds > 0 for seconds in (*one.parts.values, one.step, one.against_dense))


def test_what_a_process_loads_once_is_no_builders_own(model, monkeypatch):
    """A clock that barely moves, but for the seconds that the first index of all takes to load."""
    seconds, loaded, build = [0.0], [], StackState.append

    def clock():
        seconds[0] += 1e-3
        return seconds[0]

    def append(state, *keys):
        seconds[0] += 0 if loaded else 100
        loaded.append(state)
        build(state, *keys)

    monkeypatch.setattr(StackState, "append", append)
    monkeypatch.setattr(measure, "clock_of", lambda device, threads: clock)
    first = measured(model, [64], {"quest": QUEST}, rounds=1)[1]
    assert loaded
    assert first.build_seconds < 1


def test_layers_that_stay_dense_read_everything(model):
    _, quest = measured(model, [256], {"quest": QUEST}, rounds=1, dense_layers=(0,))
    _, whole = measured(model, [256], {"quest": QUEST}, rounds=1)
    one_layer = model.geometry.num_kv_heads * 256 * 2 * model.geometry.head_dim * 4
    assert whole.bytes_read / 2 + one_layer == pytest.approx(quest.bytes_read, rel=0.05)


def test_a_model_that_does_not_ask_is_an_error(model, monkeypatch):
    monkeypatch.setattr(measure, "attached", lambda hf, attends: torch.no_grad())
    with pytest.raises(SparseNeverRan):
        measured(model, [64], {"quest": QUEST}, rounds=1)
