"""Loops on several threads: what one thread finds, and the same number for number."""

import os

import pytest
import torch
from hash_files import hash_fields

from sahub.attention.attend import attend
from sahub.builders.build import build_stack, select
from sahub.compiled import parallel
from sahub.compiled.parallel import over_units
from sahub.index import page_bounds


@pytest.fixture
def threads(monkeypatch):
    before = torch.get_num_threads()
    monkeypatch.setattr(parallel, "_WORTH", 1)
    yield torch.set_num_threads
    torch.set_num_threads(before)


def test_every_unit_is_gone_through_once(threads):
    for num, of in ((1, 4), (3, 2), (3, 3), (10, 4), (4, 7)):
        threads(of)
        parts = over_units(lambda first, end, what: (what, list(range(first, end))), num, 100, "it")
        assert [one for what, part in parts.values() for one in part] == list(range(num))
        assert list(parts) == [part[0] for _, part in parts.values()]
        assert len(parts) == min(num, of)


def test_little_work_wakes_nobody(threads, monkeypatch):
    threads(4)
    monkeypatch.setattr(parallel, "_WORTH", 100)
    assert len(over_units(lambda first, end: None, 8, 99)) == 1
    assert len(over_units(lambda first, end: None, 8, 199)) == 2


def test_what_a_thread_raises_is_raised(threads):
    threads(2)
    with pytest.raises(ZeroDivisionError):
        over_units(lambda first, end: 1 // (first == 0), 2, 100)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_child_has_threads_of_its_own(threads):
    threads(2)
    over_units(lambda first, end: None, 2, 100)
    if (child := os.fork()) == 0:
        os._exit(len(over_units(lambda first, end: None, 2, 100)))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


STAGES = {
    "quest": {"page_size": 4, "group": "max"},
    "double_sparsity": {"group_factor": 1},
    "pqcache": {},
    "hash_attention": {},
    "socket": {},
    "magic_pig": {"lsh_k": 2, "lsh_l": 10},
    "oracle_top_k": {},
    "random_sampling": {},
}


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize("stage", STAGES)
def test_three_threads_find_what_one_does(stage, rows, threads, monkeypatch, tmp_path):
    monkeypatch.setattr(page_bounds, "_LARGE", 0)
    noise = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(2, heads, num, 64, generator=noise) for heads, num in ((6, rows), (2, 700), (2, 700)))
    k[:, :, 300:400] = k[:, :, 100:200]  # keys that tie
    fields = {"name": stage, **STAGES[stage]}
    fields |= hash_fields(tmp_path, heads=6, head_dim=64, layers=1) if stage == "hash_attention" else {}
    fields |= {} if stage == "magic_pig" else {"density": 0.2}
    stack = build_stack([{"name": "sink", "sink_size": 4}, fields])
    found = []
    for of in (1, 3):
        threads(of)
        chosen = select(stack, q, k, v)
        found.append((chosen.probabilities(), attend(q, k, v, chosen)))
    assert all(torch.equal(*pair) for pair in zip(*found, strict=True))
