"""Buffers that grow, rewind and keep nothing they should not; a store within its byte budget."""

import gc
import mmap
from pathlib import Path
from weakref import ref

import pytest
import torch
from conftest import tiny_config
from families import tiny

from sahub import build_stack
from sahub.engine.contexts.cache import BufferLayer, new_cache
from sahub.engine.contexts.prefix import INDEX_SETS, Prefix
from sahub.engine.contexts.store import PrefixStore
from sahub.engine.model import wrap_model
from sahub.engine.session import Attention, Session


def chunk(n: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(1, 2, n, 4), torch.randn(1, 2, n, 6)


def test_a_buffer_is_what_concatenation_gives_whatever_its_room():
    torch.manual_seed(0)
    for room in (3, 7, 100):
        layer, parts = BufferLayer(room), [chunk(n) for n in (5, 1, 1, 9)]
        for keys, values in parts:
            held = layer.update(keys, values)
        assert torch.equal(held[0], torch.cat([keys for keys, _ in parts], dim=2))
        assert torch.equal(held[1], torch.cat([values for _, values in parts], dim=2))
        assert layer.get_seq_length() == 16


def test_rewinding_forgets_and_writes_again():
    layer = BufferLayer(16)
    keys, values = chunk(8)
    layer.update(keys, values)
    layer.rewind(5)
    more = chunk(2)
    held, _ = layer.update(*more)
    assert torch.equal(held, torch.cat([keys[:, :, :5], more[0]], dim=2))
    layer.crop(-3)
    assert layer.get_seq_length() == 4


def prefix(n: int) -> Prefix:
    cache = new_cache(tiny_config("llama"), n)
    for layer in range(2):
        cache.update(*chunk(n), layer)
    return Prefix(cache=cache, context_ids=tuple(range(n)), room=0)


def test_the_store_keeps_to_its_bytes_and_makes_again():
    made = []

    def make(key: str):
        made.append(key)
        return prefix(10)

    store = PrefixStore(2 * prefix(10).nbytes)
    for key in "abacab":
        store.get(key, lambda key=key: make(key))
    assert made == list("abcb")


def test_indexes_are_bounded_and_belong_to_the_prefix_in_use():
    store = PrefixStore(10**9)
    first = store.get("a", lambda: prefix(4))
    for number in range(3 * INDEX_SETS):
        for layer in range(2):
            first.remember((layer, number), object())
    assert len(first.indexes) == 2 * INDEX_SETS
    assert store.get("a", lambda: prefix(4)).indexes
    store.get("b", lambda: prefix(4))
    assert not first.indexes


@pytest.mark.parametrize("offload", ["host", "disk", "none"])
def test_contexts_beyond_the_cap_come_back_from_where_they_were_put(
    make_model, tokenizer, tmp_path: Path, offload: str
) -> None:
    contexts = [tuple(range(10 + at, 60 + 3 * at)) for at in range(2)]
    model = wrap_model(make_model().to(torch.bfloat16), tokenizer)
    quest = Attention(stack=build_stack([{"name": "quest", "density": 0.3, "page_size": 4}]))

    def answers(session: Session, times: int) -> list[list[torch.Tensor]]:
        found = []
        for ids in contexts * times:
            held = session.prefix(ids, 16)
            alone = session.generate(held, [7, 8], quest, max_new_tokens=3).logits
            together = session.generate_together(held, [[7, 8], [9, 7]], quest, [3, 3])
            found.append([alone, torch.tensor([run.ids for run in together])])
        return found

    expected = answers(Session(model), 1) * 2
    before = model.counters.prefills
    found = answers(Session(model, prefix_bytes=0, offload=offload, folder=tmp_path / "contexts"), 2)
    assert model.counters.prefills - before == (4 if offload == "none" else 2)
    for one, other in zip(found, expected, strict=True):
        assert all(torch.equal(mine, his) for mine, his in zip(one, other, strict=True))
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]  # nothing is left behind


def test_an_answer_keeps_no_state_of_its_layers(make_model, tokenizer, monkeypatch) -> None:
    session = Session(wrap_model(make_model("llama"), tokenizer))
    held, make, made = session.prefix(tuple(range(20, 84)), 30), Prefix.state, []
    quest = Attention(stack=build_stack([{"name": "quest", "page_size": 4, "density": 0.5}]))

    def noted(*arguments):
        made.append(ref(state := make(*arguments)))
        return state

    monkeypatch.setattr(Prefix, "state", noted)
    answers = [
        session.force(held, [7, 8, 9], [10, 11, 12], quest),
        session.generate(held, [7, 8, 9], quest, max_new_tokens=4),
        *session.generate_together(held, [[7, 8, 9], [9, 8, 7]], quest, [4, 4]),
    ]
    assert len(answers) == 4
    assert len(made) == 6  # two layers, for the questions together once
    gc.collect()  # what compiles a loop, once, leaves frames behind
    assert not any(state() for state in made)


def test_a_prefix_that_somebody_holds_is_brought_back_when_it_is_asked(make_model, tokenizer, tmp_path: Path) -> None:
    session = Session(wrap_model(make_model(), tokenizer), prefix_bytes=0, offload="disk", folder=tmp_path)
    first = session.prefix(tuple(range(10, 60)), 16)
    expected = session.generate(first, [7], Attention(), max_new_tokens=3).ids
    session.prefix(tuple(range(20, 90)), 16)
    assert first.is_away
    assert session.generate(first, [7], Attention(), max_new_tokens=3).ids == expected
    assert session.model.counters.prefills == 2


def test_a_disk_that_holds_nothing_costs_a_prefill(make_model, tokenizer, tmp_path: Path, caplog) -> None:
    (tmp_path / "contexts").write_text("no folder")
    session = Session(wrap_model(make_model(), tokenizer), prefix_bytes=0, offload="disk", folder=tmp_path / "contexts")
    for ids in [tuple(range(10, 60)), tuple(range(20, 90))] * 2:
        session.generate(session.prefix(ids, 16), [7], Attention(), max_new_tokens=3)
    assert session.model.counters.prefills == 4
    assert [record.getMessage() for record in caplog.records if "compute.offload=none" in record.getMessage()]


def test_what_is_no_buffer_is_made_again(tokenizer, tmp_path: Path) -> None:
    session = Session(wrap_model(tiny("gemma2"), tokenizer), prefix_bytes=0, offload="disk", folder=tmp_path)
    for ids in [tuple(range(10, 60)), tuple(range(20, 90))] * 2:
        session.generate(session.prefix(ids, 16), [7], Attention(), max_new_tokens=3)
    assert session.model.counters.prefills == 4


@pytest.mark.parametrize("room", [10, 10_000])
def test_only_large_buffers_are_mapped(room, monkeypatch):
    mapped = []

    def mapping(*given, **rest):
        mapped.append(given)
        return anonymous(*given, **rest)

    anonymous = mmap.mmap
    monkeypatch.setattr(mmap, "mmap", mapping)
    BufferLayer(room).update(torch.randn(1, 2, 9, 16), torch.randn(1, 2, 9, 8))
    assert len(mapped) == (2 if room == 10_000 else 0)  # a process may have so many mappings only
