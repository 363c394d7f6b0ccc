"""Buffers that grow, rewind and keep nothing they should not; a store within its byte budget."""

import torch
from conftest import tiny_config

from sahub.engine.cache import BufferLayer, new_cache
from sahub.engine.prefix import INDEX_SETS, Prefix, PrefixStore


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
