"""Memory that grows: what is in it, whoever shares it and wherever it lies."""

import mmap

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.attention.buffers import Growing, apart

STEPS = st.lists(st.tuples(st.sampled_from(["append", "truncate", "fork", "take"]), st.integers(1, 40)), max_size=12)


@settings(max_examples=40, deadline=None)
@given(steps=STEPS, width=st.sampled_from([1, 1 << 13]), fill=st.sampled_from([0.0, -1.0, float("-inf")]))
def test_what_is_held_is_what_was_put_there(steps, width, fill):
    held, expected, others, number = Growing(axis=1, fill=fill), torch.empty(2, 0, width), [], 0
    for what, count in steps:
        if what == "append":
            number += 1
            more = torch.full((2, count, width), float(number)) + torch.arange(2.0)[:, None, None]
            held.append(more)
            expected = torch.cat([expected, more], dim=1)
        elif what == "truncate":
            held.truncate(count)
            expected = expected[:, :count]
        elif what == "fork":
            others.append((held, expected))
            held = held.fork()
        elif held.length:
            held, expected = held.take(torch.tensor([1, 0])), expected[[1, 0]]
    for found, right in [*others, (held, expected)]:
        assert found.length == right.shape[1]
        if found.length:
            assert torch.equal(found.data, right)
            free = found.memory[:, found.length :]
            assert torch.equal(free, torch.full_like(free, fill))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int16, torch.int64, torch.bool])
@pytest.mark.parametrize("length", [3, 1 << 20])
def test_memory_apart_is_zeros_of_the_kind_that_was_asked_for(length, dtype):
    found, other = (apart((2, length), torch.ones(1, dtype=dtype)) for _ in range(2))
    assert (found.dtype, tuple(found.shape), int(found.count_nonzero())) == (dtype, (2, length), 0)
    found[:] = 1
    assert not int(other.count_nonzero())


@pytest.mark.parametrize("refused", ["mmap", "madvise"])
def test_systems_that_do_not_map_or_have_no_large_pages_hold_the_same(refused, monkeypatch):
    asked = []

    class Refusing(mmap.mmap):
        def __new__(cls, *given, **rest):
            if refused == "mmap":
                raise OSError(12, "Cannot allocate memory")
            return super().__new__(cls, *given, **rest)

        def madvise(self, *given):
            asked.append(given)
            raise OSError(22, "Invalid argument")

    monkeypatch.setattr(mmap, "mmap", Refusing)
    found = apart((1 << 20,), torch.ones(1))
    assert int(found.count_nonzero()) == 0
    found[-1] = 1
    assert float(found[-1]) == 1
    assert asked == ([(mmap.MADV_HUGEPAGE,)] if refused == "madvise" else [])
