"""Pages of keys: bounds in as many bits as they are said to take, and heads that choose pages together."""

from itertools import product

import pytest
import torch

from sahub.attention.call import Call, Geometry
from sahub.attention.rows import rows_of
from sahub.builders.build import build_stack, select
from sahub.errors import ConfigError
from sahub.index.packed_bits import pack, unpack

D, PAGE, KEYS = 8, 4, 39


def grown(stage, k, valid, chunks):
    state = build_stack([stage]).new_state(layer=0)
    for part, mask in zip(k.split(chunks, dim=2), valid.split(chunks, dim=1), strict=True):
        state.append(part, part, mask)
    return state


def test_packed_numbers_come_back():
    noise = torch.Generator().manual_seed(0)
    for width in range(1, 16):
        codes = torch.randint(0, 2**width, (2, 3, 5, 7), generator=noise, dtype=torch.int32)
        packed = pack(codes, width)
        assert packed.dtype == torch.uint8
        assert packed.shape[-1] == -(-7 * width // 8)
        assert torch.equal(unpack(packed, width, 7), codes)


@pytest.mark.parametrize("label_bits", [1, 2, 3, 4, 8, 11, 16])
@pytest.mark.parametrize("page_size", [8, 16, 64])
def test_an_index_of_pages_holds_the_bits_that_it_reports(label_bits, page_size):
    heads, width, keys = 2, 64, 4096
    stack = build_stack([{"name": "quest", "density": 0.1, "page_size": page_size, "label_bits": label_bits}])
    state = stack.new_state(layer=0)
    k = torch.randn(1, heads, keys, width, generator=torch.Generator().manual_seed(0)).bfloat16()
    for part in k.split([1000, 3000, 90, 6], dim=2):
        state.append(part, part)
    held = state.indexes[0].code_bytes * 8 / (keys * heads)
    geometry = Geometry(num_layers=1, num_heads=4, num_kv_heads=heads, head_dim=width)
    assert held == pytest.approx(stack.aux_bits(geometry, keys), rel=0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("label_bits", [1, 2, 4, 7, 8, 16])
def test_kept_bounds_are_bounds_and_no_further_off_than_a_step(label_bits, dtype):
    noise = torch.Generator().manual_seed(label_bits)
    k = (torch.randn(2, 2, KEYS, D, generator=noise) * 3).to(dtype)
    k[0, 0, 4:8] = 0.25  # a page without any spread
    valid = torch.arange(KEYS) >= torch.tensor([[0], [7]])
    state = grown({"name": "quest", "density": 0.5, "page_size": PAGE, "label_bits": label_bits}, k, valid, [9, 20, 10])
    index = state.indexes[0]
    for channel, sign in product(range(D), (1.0, -1.0)):
        q = torch.zeros(2, 2, 1, D)
        q[..., channel] = sign
        scores = index.scores(Call(q=q, k=k, v=k, scale=1.0, rows=rows_of(q, k, valid), valid=valid))
        places = [(b, unit, at) for b, start in ((0, 0), (1, 7)) for unit, at in enumerate(range(start, KEYS, PAGE))]
        for b, unit, at in places:
            page = sign * k[b, :, at : at + PAGE].float()
            true, found = page[..., channel].amax(1), scores.logits[b, :, 0, unit]
            assert (found >= true).all()
            if at + PAGE > KEYS or label_bits == 16:
                assert torch.equal(found, true)
            most = page.amax(1)  # of every channel
            step = (most.amax(-1) - most.amin(-1)) / (2**label_bits - 1)
            assert (found <= true + step * 1.001 + 1e-6).all()


@pytest.mark.parametrize("label_bits", [2, 4, 8, 16])
def test_labels_do_not_depend_on_chunks_forks_and_detours(label_bits):
    noise = torch.Generator().manual_seed(0)
    k = torch.randn(2, 2, KEYS, D, generator=noise)
    q = torch.randn(2, 4, 1, D, generator=noise)
    for pad in (0, 6):
        valid = torch.arange(KEYS) >= torch.tensor([[0], [pad]])
        stage = {"name": "quest", "heavy_size": 12, "page_size": PAGE, "label_bits": label_bits}
        whole = grown(stage, k, valid, [KEYS]).select(q, k, k).probabilities()
        state = grown(stage, k, valid, [1, 2, 3, 13, 20])
        assert torch.equal(state.select(q, k, k).probabilities(), whole)
        for length in (0, 5, 12, 30):
            twin = state.fork()
            twin.truncate(length, k, k, valid)
            twin.append(k[:, :, length:] * 0 + 1, k[:, :, length:], valid[:, length:])
            twin.truncate(length, k, k, valid)
            twin.append(k[:, :, length:], k[:, :, length:], valid[:, length:])
            assert torch.equal(twin.select(q, k, k).probabilities(), whole)
        assert torch.equal(state.select(q, k, k).probabilities(), whole)


@pytest.mark.parametrize("group", ["none", "union", "sum", "max"])
@pytest.mark.parametrize("budget", [{"heavy_size": 8}, {"density": 0.3}, {"select": {"top_p": 0.4}}])
def test_heads_of_a_group_choose_together(group, budget):
    noise = torch.Generator().manual_seed(3)
    q, k = torch.randn(1, 6, 3, D, generator=noise) * 2, torch.randn(1, 2, KEYS, D, generator=noise)
    stage = {"name": "quest", "page_size": PAGE, **budget}
    sinks = {"name": "sink", "sink_size": 2}
    found = select(build_stack([sinks, {**stage, "group": group}]), q, k, k, scale=1.0).probabilities()[0] > 0
    alone = select(build_stack([sinks, stage]), q, k, k, scale=1.0).probabilities()[0] > 0
    if group == "none":
        assert torch.equal(found, alone)
        return
    each = found.unflatten(0, (2, 3))
    assert (each == each[:, :1]).all()
    if group == "union":
        assert torch.equal(each[:, 0], alone.unflatten(0, (2, 3)).any(1))
        return
    if "select" in budget:
        return
    for g, row in ((g, row) for g in range(2) for row in range(3)):
        last = KEYS - 3 + row
        pages = [range(at, min(at + PAGE, last + 1)) for at in range(0, last + 1, PAGE)]
        bounds = []
        for page in pages:
            high, low = k[0, g, list(page)].amax(0), k[0, g, list(page)].amin(0)
            several = [float(torch.maximum(x * high, x * low).sum()) for x in q[0, 3 * g : 3 * g + 3, row]]
            bounds.append(sum(several) if group == "sum" else max(several))
        num = 8 if "heavy_size" in budget else int(0.3 * (last + 1) + 1e-6) - 2
        best = sorted(range(len(pages)), key=lambda n: (-bounds[n], -n))
        added = [j for n in best for j in reversed(pages[n]) if j > 1][:num]
        assert set(each[g, 0, row].nonzero().flatten().tolist()) == {0, 1, *added}


def test_an_unknown_group_fails_by_name():
    with pytest.raises(ConfigError, match="group=mean: must be one of none, union, sum, max"):
        build_stack([{"name": "quest", "density": 0.1, "group": "mean"}])
