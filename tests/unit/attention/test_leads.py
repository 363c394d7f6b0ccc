"""What sink and window keep: asked once for all layers, and the same by ranges as key by key."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from sahub.attention.call import Call
from sahub.attention.leads import Leads
from sahub.attention.rows import rows_of
from sahub.attention.selection import Kind, Selection
from sahub.methods.local import Local
from sahub.methods.sink import Sink

SIZES = st.one_of(
    st.integers(0, 60),
    st.sampled_from([0.1, 0.5, 1.0]),
    st.builds(
        lambda share, least, most: {"of_budget": share, "at_least": least, "at_most": max(least, most)},
        st.floats(0.01, 1),
        st.integers(1, 20),
        st.integers(1, 60),
    ),
)
STAGES = st.lists(
    st.one_of(
        st.builds(lambda size: Sink(sink_size=size), SIZES),
        st.builds(lambda size: Local(window_size=size), SIZES),
        st.builds(lambda density: Local(density=density), st.sampled_from([0.05, 0.3, 1.0])),
    ),
    max_size=3,
)


def call_of(rows, keys, budget=None):
    q, k = torch.randn(1, 4, rows, 8), torch.randn(1, 2, keys, 8)
    return Call(q=q, k=k, v=k, scale=1.0, rows=rows_of(q, k, None), density=budget)


@given(stages=STAGES, keys=st.integers(1, 60), budget=st.sampled_from([0.1, 0.5, 1.0]), rows=st.integers(1, 3))
def test_ranges_hold_what_stages_add_key_by_key(stages, keys, budget, rows):
    call = call_of(min(rows, keys), keys, budget)
    expected = Selection.none(call.rows, call.num_heads, call.num_kv_heads)
    for stage in stages:
        if expected.kind is not Kind.ALL:
            expected = expected.then(stage.add(call, expected, None))
    found, num = Leads().of(call, stages)
    assert num == len(stages)
    assert (found.kind is Kind.NONE) == (expected.kind is Kind.NONE)
    assert torch.equal(found.probabilities(), expected.probabilities())


def test_layers_ask_once_for_the_rows_of_a_call():
    asked = []

    class Asked(Sink):
        def add(self, call, taken, index):
            asked.append(call.rows.num_rows)
            return super().add(call, taken, index)

    leads, stages = Leads(), [Asked(sink_size=3)]
    for rows in (5, 300):
        for _ in range(3):
            leads.of(call_of(rows, 400), stages)
    assert asked == [5, 300]
    leads.of(call_of(300, 401), stages)
    assert asked == [5, 300, 300]


def test_who_changes_what_is_added_is_asked_for_single_rows_too():
    class Late(Sink):
        def add(self, call, taken, index):
            found = super().add(call, taken, index)
            return taken.of(found.slots + 5, found.weights)

    for rows in (1, 3):
        found, _ = Leads().of(call_of(rows, 20), [Late(sink_size=2)])
        assert found.probabilities()[0, 0, -1].nonzero().flatten().tolist() == [5, 6]


def test_threads_that_share_a_stack_get_their_own_lead():
    leads = Leads()

    class Slow(Sink):
        def span(self, call, kept):
            if call.rows.num_keys == 40:  # another thread's call of another length comes in between
                of(Slow(sink_size=3), 30)
            return super().span(call, kept)

    def of(stage, keys):
        return leads.of(call_of(1, keys), [stage])[0].rows.num_keys

    stage = Slow(sink_size=3)
    assert of(stage, 40) == 40
    assert of(stage, 30) == 30
    assert of(stage, 40) == 40
