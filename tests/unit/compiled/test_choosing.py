"""The compiled choice against one that sorts, in plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.compiled.choosing import choosing


def best(logits, size, keys, held, need):
    """The best units' free keys, the most recent of each first, until there are `need`."""
    found = []
    for unit in sorted(np.flatnonzero(logits > -np.inf), key=lambda one: (-logits[one], -one)):
        free = [key for key in range(min(unit * size + size, keys) - 1, unit * size - 1, -1) if key not in held]
        found += free[: max(0, need - len(found))]
    return sorted(found)


def chosen(logits, need, *, size=1, keys=None, held=(), near=0.0, room=64):
    """Keys of each row, and the rows and units whose order is open."""
    rows = logits.shape[0]
    keys = logits.shape[1] * size if keys is None else keys
    slots, counts = np.zeros((rows, max(1, int(need.max()))), np.int64), np.zeros(rows, np.int64)
    held = np.array([held], np.int64).reshape(1, -1)
    unsure = np.zeros((room, 2), np.int64)
    nears = np.full(rows, near, np.float32)
    weights = np.zeros(held.shape, np.float32)
    ends = np.broadcast_to(np.array(keys, np.int64), rows).copy()
    num = choosing()(0, len(logits), logits, nears, size, ends, held, weights, need, slots, counts, unsure)
    return num, [one[:count].tolist() for one, count in zip(slots, counts, strict=True)], unsure[: max(num, 0)]


@settings(max_examples=200, deadline=None)
@given(st.data())
def test_it_takes_the_best_units_until_the_budget_is_full(data):
    size, most = data.draw(st.sampled_from([1, 2, 4, 16])), data.draw(st.sampled_from([1, 7, 200, 900]))
    noise = np.random.default_rng(data.draw(st.integers(0, 1 << 30)))
    shape = data.draw(st.integers(1, 4)), -(-most // size)
    ends = noise.integers(1, most + 1, shape[0])
    ties = data.draw(st.booleans())
    logits = (noise.integers(0, 4, shape) if ties else noise.standard_normal(shape)).astype(np.float32)
    logits[noise.random(shape) < data.draw(st.sampled_from([0.0, 0.3]))] = -np.inf
    held = noise.permutation(int(ends.min()))[: data.draw(st.integers(0, most))].tolist()
    need = noise.integers(-1, data.draw(st.sampled_from([most // 8, most])) + 3, shape[0])
    num, found, _ = chosen(logits, need, size=size, keys=ends, held=held)
    assert num == 0
    rows = zip(logits, ends, need, strict=True)
    assert found == [best(row, size, end, set(held), many) for row, end, many in rows]


@pytest.mark.parametrize("kind", ["noise", "ascending", "peaks where no sample looks"])
def test_of_many_keys_a_sample_tells_where_to_cut_and_may_be_wrong(kind):
    logits = np.random.default_rng(0).standard_normal((2, 6000)).astype(np.float32)
    if kind == "ascending":
        logits.sort()
    elif kind != "noise":
        logits[:, ::16] += 10  # all that the sample sees
    need = np.array([500, 30])
    found = chosen(logits, need, held=range(5000, 5100))[1]
    assert found == [best(row, 1, 6000, set(range(5000, 5100)), many) for row, many in zip(logits, need, strict=True)]


def test_scores_that_are_too_near_at_the_cut_are_named():
    logits = np.array([[5.0, 1.0, 4.0, 3.9, 3.95, 0.0]], np.float32)
    assert chosen(logits, np.array([1]), near=0.1)[0] == 0
    num, _, unsure = chosen(logits, np.array([2]), near=0.1)
    assert num == 3
    assert sorted(unsure.tolist()) == [[0, 2], [0, 3], [0, 4]]
    assert chosen(logits, np.array([4]), near=0.1)[0] == 0  # all three are in, in whatever order
    assert chosen(logits, np.array([2]), near=0.1, room=2)[0] == -1


def test_what_is_no_number_is_not_chosen_by():
    assert chosen(np.array([[1.0, np.nan, 2.0]], np.float32), np.array([1]))[0] == -1
