"""Observers are asked once each, and say the same however the rows come."""

from unittest.mock import patch

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.builders.build import build_stack
from sahub.index import observed, observers

PREFIX, MOST, WINDOW = 20, 50, 6
STAGES = {
    "snapkv": {"kernel_size": 3},
    "tova": {},
    "expected_attention": {"rank": "value_weighted"},
    "expected_attention, the same window beside snapkv": {},
    "snapkv, heads together": {"kernel_size": 3, "group": "max"},
}


def stack_of(name, **budget):
    stage = {"name": name.partition(",")[0], **(budget or {"density": 0.6}), "window_size": WINDOW, **STAGES[name]}
    beside = [{"name": "snapkv", "heavy_size": 2, "window_size": WINDOW}] if "beside" in name else []
    return build_stack([{"name": "sink", "sink_size": 1}, *beside, stage])


def tensors(batch):
    noise = torch.Generator().manual_seed(3)
    q = torch.randn(batch, 4, MOST, 8, generator=noise)
    return q, *(torch.randn(batch, 2, MOST, 8, generator=noise) for _ in range(2))


class Rows:
    """A state that is fed rows, and what it chose for each of them."""

    def __init__(self, stack, q, k, v, valid):
        self.state, self.q, self.k, self.v, self.valid = stack.new_state(layer=0), q, k, v, valid
        self.append(PREFIX)
        self.state.freeze()

    def append(self, end):
        start = self.state.length
        valid = None if self.valid is None else self.valid[:, start:end]
        self.state.append(self.k[:, :, start:end], self.v[:, :, start:end], valid)

    def choose(self, start):
        end = self.state.length
        return self.state.select(self.q[:, :, start:end], self.k[:, :, :end], self.v[:, :, :end]).probabilities()

    def feed(self, num):
        start = self.state.length
        self.append(start + num)
        return self.choose(start)


@pytest.mark.parametrize("name", STAGES)
@settings(max_examples=15)
@given(data=st.data())
def test_however_rows_come_and_go_each_gets_what_it_got_alone(name, data):
    q, k, v = tensors(2)
    valid = torch.arange(MOST) >= torch.tensor([[0], [5]]) if data.draw(st.booleans()) else None
    if valid is not None and data.draw(st.booleans()):
        valid[1, PREFIX + 1 : PREFIX + 3] = False  # observers that are padding
    stack = stack_of(name, **data.draw(st.sampled_from([{"density": 0.6}, {"heavy_size": 4}])))
    one_by_one = Rows(stack, q, k, v, valid)
    expected = [one_by_one.feed(1) for _ in range(MOST - PREFIX)]
    rows = Rows(stack, q, k, v, valid)
    at_once = data.draw(st.sampled_from([observed._CACHED, 1]))  # all heads, or one KV head after the other
    with patch.object(observed, "_CACHED", at_once):
        compare(rows, expected, data)


def compare(rows, expected, data):
    """Feed, ask again, truncate and fork; whatever is found is what each row got alone."""
    k, v = rows.k, rows.v
    for _ in range(data.draw(st.integers(1, 6))):
        length = rows.state.length
        what = data.draw(st.sampled_from(["feed", "feed", "again", "truncate", "fork"]))
        if what == "feed" and length < MOST:
            found, first = rows.feed(data.draw(st.integers(1, min(9, MOST - length)))), length
        elif what == "again" and length > PREFIX:
            first = data.draw(st.integers(PREFIX, length - 1))
            found = rows.choose(first)
        else:
            if what == "truncate":
                rows.state.truncate(data.draw(st.integers(PREFIX, length)), k, v)
            if what == "fork":
                rows.state = rows.state.fork()
            continue
        for i in range(found.shape[2]):
            alone = expected[first + i - PREFIX][:, :, 0]
            assert torch.equal(found[:, :, i, : alone.shape[-1]], alone)


@pytest.mark.parametrize("name", ["snapkv", "tova", "expected_attention"])
def test_an_observer_reads_the_keys_once(name, monkeypatch):
    asked, logits = [], observed._logits

    def counting(call, queries, places):
        asked.extend(places)
        return logits(call, queries, places)

    monkeypatch.setattr(observed, "_logits", counting)
    rows = Rows(stack_of(name), *tensors(1), None)
    for _ in range(WINDOW):
        rows.feed(1)
    assert sorted(set(asked)) == list(range(PREFIX, PREFIX + WINDOW))
    assert len(asked) <= WINDOW + 1  # tova's first one serves itself
    rows.feed(1)
    asked.clear()
    rows.feed(1)
    assert asked == []


@pytest.mark.parametrize("name", STAGES)
@pytest.mark.parametrize("again", [False, True])
def test_forks_with_other_questions_do_not_hear_each_other(name, again):
    q, k, v = tensors(1)
    both = [Rows(stack_of(name), q, k, v, None), Rows(stack_of(name), q.flip(1), k, v, None)]
    alone = [Rows(stack_of(name), rows.q, k, v, None) for rows in both]
    both[1].state = both[0].state.fork()
    if again:  # from a state that has observers of its own
        both[0].feed(WINDOW + 1)
        both[1].state = both[0].state.fork()
        both[1].state.truncate(PREFIX, k, v)
        both[0].state.truncate(PREFIX, k, v)
    for num in (WINDOW, 1, 1, 2):
        for rows, lone in zip(both, alone, strict=True):
            assert torch.equal(rows.feed(num), lone.feed(num))


def test_forks_of_one_question_say_it_once(monkeypatch):
    rows, asked, logits = Rows(stack_of("snapkv"), *tensors(1), None), [], observed._logits
    end = PREFIX + WINDOW
    rows.append(end)
    rows.state.observe(rows.q[:, :, PREFIX:end], rows.k[:, :, :end], rows.v[:, :, :end])
    forks = [rows.state.fork() for _ in range(3)]
    monkeypatch.setattr(observed, "_logits", lambda *given: asked.append(given[2]) or logits(*given))
    found = []
    for rows.state in forks:
        found.append(rows.feed(1))
    assert len(asked) == 1
    assert torch.equal(found[0], found[1])
    assert torch.equal(found[0], found[2])


def test_every_stage_of_a_stack_is_told_once(monkeypatch):
    names = ("snapkv", "tova", "expected_attention")
    stages = [{"name": name, "heavy_size": 2, "window_size": WINDOW} for name in names]
    stages.append({**stages[0], "kernel_size": 1})
    rows, asked, logits = Rows(build_stack(stages), *tensors(1), None), [], observed._logits
    rows.feed(WINDOW)
    rows.feed(1)
    monkeypatch.setattr(observed, "_logits", lambda *given: asked.append(given[2]) or logits(*given))
    monkeypatch.setattr(observers.Observers, "of", lambda *given: asked.append(given))
    rows.feed(1)
    assert asked == []


def test_stages_that_share_observers_read_the_keys_once_each(monkeypatch):
    asked, logits = [], observed._logits
    monkeypatch.setattr(observed, "_logits", lambda *given: asked.append(given[2]) or logits(*given))
    rows = Rows(stack_of("expected_attention, the same window beside snapkv"), *tensors(1), None)
    for _ in range(WINDOW):
        rows.feed(1)
    assert sorted(map(len, asked)) == [1] * 2 * WINDOW


def test_what_is_kept_of_observers_is_a_row_each():
    rows = Rows(stack_of("snapkv"), *tensors(1), None)
    rows.feed(WINDOW - 1)
    [(_, said)] = rows.state.indexes[1]._said.values()
    assert all(one.untyped_storage().nbytes() == one.nbytes for one in said.values())
    assert said["shares"].shape == (1, 4, PREFIX)
