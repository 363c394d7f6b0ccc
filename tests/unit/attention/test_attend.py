"""Attention over a selection: the formula, its numbers at the edges, and what the gather backend may read."""

import math
from itertools import product

import pytest
import torch
from temporaries import Largest

from sahub.attention.attend import attend
from sahub.attention.rows import rows_of
from sahub.attention.selection import Selection
from sahub.builders.build import build_stack, select
from sahub.errors import ConfigError, SahubError

OUT = float("-inf")
BACKENDS = ("gather", "reference")


def qkv(batch=2, heads=4, kv_heads=2, rows=3, keys=20, dim=8, seed=0):
    noise = torch.Generator().manual_seed(seed)
    shapes = (batch, heads, rows, dim), (batch, kv_heads, keys, dim), (batch, kv_heads, keys, dim + 2)
    return [torch.randn(*shape, generator=noise) for shape in shapes]


def bare(q, k, mask=None):
    return Selection.none(rows_of(q, k, mask), q.shape[1], k.shape[1])


def expected(q, k, v, chance, scale, softcap=None, sinks=None):
    """sum_j e_j / p_j v_j / (sum_j e_j / p_j + e_sink) over the kept keys, per row, in fp64 loops."""
    out = torch.zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[3], dtype=torch.float64)
    group = q.shape[1] // k.shape[1]
    for b, h, i in torch.cartesian_prod(*(torch.arange(n) for n in q.shape[:3])).tolist():
        kept = chance[b, h, i].nonzero().flatten().tolist()
        z = {j: float(q[b, h, i].double() @ k[b, h // group, j].double()) * scale for j in kept}
        if softcap is not None:
            z = {j: softcap * math.tanh(logit / softcap) for j, logit in z.items()}
        weight = {j: math.exp(z[j]) / float(chance[b, h, i, j]) for j in kept}
        total = sum(weight.values()) + (0 if sinks is None else math.exp(float(sinks[h])))
        for j in kept:
            out[b, i, h] += weight[j] / total * v[b, h // group, j].double()
    return out


SINKS = torch.tensor([-1.0, 0.0, 2.0, 5.0])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("sampled", [False, True])
@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize(("softcap", "sinks"), [(None, None), (1.5, None), (None, SINKS), (0.7, SINKS)])
def test_the_formula(backend, sampled, heads, softcap, sinks):
    q, k, v = qkv()
    chance = torch.rand(2, heads, 3, 20, generator=torch.Generator().manual_seed(1))
    kept = chance > 0.6
    kept &= torch.arange(20) <= torch.arange(17, 20)[:, None]
    weights = torch.where(kept, -chance.log() if sampled else torch.zeros(()), OUT)
    selection = bare(q, k).of(torch.arange(20).expand(2, heads, 3, 20), weights)
    out = attend(q, k, v, selection, scale=0.7, softcap=softcap, sinks=sinks, backend=backend)
    want = expected(q, k, v, (kept * (chance if sampled else 1.0)).expand(2, 4, 3, 20), 0.7, softcap, sinks)
    torch.testing.assert_close(out, want.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize(("softcap", "sinks"), [(None, None), (0.7, SINKS)])
@pytest.mark.parametrize("share", [0.02, 0.5])
def test_many_rows_attend_alike_whether_they_gather_or_not(heads, softcap, sinks, share, monkeypatch):
    q, k, v = qkv(rows=12, keys=40)
    mask = torch.ones(2, 40, dtype=torch.bool)
    mask[1, :31] = False  # rows without a valid key, too
    chance = torch.rand(2, heads, 12, 40, generator=torch.Generator().manual_seed(1))
    kept = (chance < share) | (torch.arange(40) == torch.arange(28, 40)[:, None])
    kept &= (torch.arange(40) <= torch.arange(28, 40)[:, None]) & mask[:, None, None]
    slots = torch.where(kept, torch.arange(40), 40).sort(-1).values[..., : int(kept.sum(-1).max())]
    weights = torch.where(slots < 40, torch.where(slots % 3 == 0, 0.7, 0.0), OUT)
    selection = bare(q, k, mask).of(slots.clamp(max=39), weights)
    further = {"scale": 0.7, "softcap": softcap, "sinks": sinks}
    want = attend(q, k, v, selection, backend="reference", **further)
    for wide, loops in ((0, False), (0, True), (1000, True)):  # never, by torch and by a loop; always
        monkeypatch.setattr("sahub.attention.attend._WIDE", (wide, wide))
        monkeypatch.setattr("sahub.attention.attend.at_hand", lambda loops=loops: loops)
        torch.testing.assert_close(attend(q, k, v, selection, **further), want, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_sink_takes_its_share_whatever_its_size_and_none_without_size(backend):
    q, k, v = qkv()
    selection = bare(q, k).all()
    plain = attend(q, k, v, selection, backend=backend)
    nothing, everything = (
        attend(q, k, v, selection, sinks=torch.full((4,), size), backend=backend) for size in (-torch.inf, 3e4)
    )
    torch.testing.assert_close(nothing, plain)
    assert not everything.any()
    assert torch.equal(attend(q, k, v, selection, softcap=1e6, backend=backend).isfinite(), plain.isfinite())


@pytest.mark.parametrize("backend", BACKENDS)
def test_everything_is_dense_attention(backend):
    q, k, v = qkv()
    out = attend(q, k, v, bare(q, k).all(), backend=backend)
    mask = torch.arange(20) <= torch.arange(17, 20)[:, None]
    want = torch.nn.functional.scaled_dot_product_attention(
        q, k.repeat_interleave(2, 1), v.repeat_interleave(2, 1), attn_mask=mask
    )
    torch.testing.assert_close(out, want.transpose(1, 2), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("rows", [1, 3, 40])
@pytest.mark.parametrize("padded", [False, True])
@pytest.mark.parametrize("own", [{}, {"softcap": 0.9, "sinks": SINKS}], ids=["plain", "softcap and sinks"])
def test_everything_in_chunks_of_rows(rows, padded, own, monkeypatch):
    q, k, v = qkv(rows=rows, keys=40)
    mask = torch.arange(40) >= torch.tensor([[0], [7]]) if padded else None
    selection = bare(q, k, mask).all()
    whole = attend(q, k, v, selection, backend="reference", **own)
    for elements in (1, 40 * 8 * 5, 10**7):
        monkeypatch.setattr("sahub.attention.gather._CHUNK_ELEMENTS", elements)
        torch.testing.assert_close(attend(q, k, v, selection, **own), whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("backend", BACKENDS)
def test_rows_without_a_valid_key_give_zero(backend):
    q, k, v = qkv(rows=6, keys=6)
    mask = torch.arange(6) >= torch.tensor([[0], [3]])
    stacks = [{"name": "dense"}], [{"name": "local", "window_size": 2}]
    for stages, sinks in product(stacks, (None, SINKS, SINKS - torch.inf)):
        out = attend(q, k, v, select(build_stack(stages), q, k, v, mask=mask), sinks=sinks, backend=backend)
        assert (out[1, :3] == 0).all()
        assert out.isfinite().all()
        assert (out[1, 3:] != 0).all()


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_row_maximum_is_that_of_the_kept_keys(backend):
    q, k, v = torch.full((1, 1, 1, 2), 100.0), torch.tensor([[[[10.0, 0], [-10, 0], [-10, 1e-3]]]]), torch.eye(3)
    v = v[None, None]
    out = attend(
        q, k, v, bare(q, k).of(torch.tensor([[[[1, 2]]]]), torch.zeros(1, 1, 1, 2)), scale=1.0, backend=backend
    )
    want = torch.tensor([0.0, -10000.0, -10000 + 0.1])[1:].softmax(0)
    torch.testing.assert_close(out.flatten(), torch.cat([torch.zeros(1), want]), atol=1e-4, rtol=1e-3)


def test_sums_over_samples_are_unbiased():
    q, k, _ = qkv(batch=1, heads=1, kv_heads=1, rows=1, keys=12)
    z = (q @ k.transpose(-1, -2)).flatten()
    noise = torch.Generator().manual_seed(3)
    chance, draws = 0.4, 4000
    sums = []
    for _ in range(draws):
        kept = torch.rand(12, generator=noise) < chance
        selection = bare(q, k).of(torch.arange(12)[None, None, None], torch.where(kept, -math.log(chance), OUT))
        sums.append(float((selection.log_weight + z).exp().sum()))
    mean, spread = torch.tensor(sums).mean(), torch.tensor(sums).std() / draws**0.5
    assert abs(float(mean - z.exp().sum())) < 4 * float(spread)


def test_an_attention_mask_restricts_any_selection():
    q, k, v = qkv(rows=1)
    mask = torch.arange(20)[None].expand(2, 20) % 2 == 0
    for selection in (bare(q, k).all(), select(build_stack([{"name": "local", "window_size": 5}]), q, k, v)):
        out = attend(q, k, v, selection, mask=mask)
        kept = selection.probabilities() * mask[:, None, None]
        torch.testing.assert_close(out, expected(q, k, v, kept, 8**-0.5).float(), atol=1e-5, rtol=1e-5)


def test_keys_in_a_larger_buffer_and_any_layout_are_read_in_place():
    q, k, v = qkv()
    stack = build_stack([{"name": "sink", "sink_size": 2}, {"name": "oracle_top_k", "heavy_size": 4}])
    selection = select(stack, q, k, v)
    plain = attend(q, k, v, selection)
    room = [torch.full((2, 2, 33, x.shape[3]), torch.nan) for x in (k, v)]
    for buffer, x in zip(room, (k, v), strict=True):
        buffer[:, :, 5:25] = x
    assert torch.equal(attend(q, *(buffer[:, :, 5:25] for buffer in room), selection), plain)
    swapped = [x.transpose(1, 2).contiguous().transpose(1, 2) for x in (k, v)]
    assert torch.equal(attend(q, *swapped, selection), plain)
    strided = [x.transpose(2, 3).contiguous().transpose(2, 3) for x in (k, v)]
    torch.testing.assert_close(attend(q, *strided, selection), plain)


@pytest.mark.parametrize("last", [{"name": "local", "window_size": 8}, {"name": "quest", "density": 0.05}])
@pytest.mark.parametrize("padded", [False, True])
def test_gather_holds_no_tensor_over_heads_rows_and_keys(last, padded):
    q, k, v = qkv(batch=1, heads=16, kv_heads=2, rows=64, keys=1024, dim=4)
    mask = torch.arange(1024)[None] >= 5 if padded else None
    with Largest() as largest:
        selection = select(build_stack([{"name": "sink", "sink_size": 4}, last]), q, k, v, mask=mask)
        attend(q, k, v, selection)
    assert largest.elements < 16 * 64 * 1024 // 2


def test_errors_name_what_is_wrong():
    q, k, v = qkv()
    with pytest.raises(SahubError, match="nothing is selected"):
        attend(q, k, v, bare(q, k))
    with pytest.raises(ConfigError, match="backend=fast: must be one of gather, reference"):
        attend(q, k, v, bare(q, k).all(), backend="fast")
    for softcap in (0.0, -1.0, math.nan):
        with pytest.raises(ConfigError, match=f"softcap={softcap}: must be above 0, or None"):
            attend(q, k, v, bare(q, k).all(), softcap=softcap)
    with pytest.raises(ConfigError, match=r"sinks \[2\]: must be \[4\], a logit of each query head"):
        attend(q, k, v, bare(q, k).all(), sinks=torch.zeros(2))


def test_an_empty_selection_is_zero_for_padding_and_an_error_for_rows_with_keys():
    q, k = torch.randn(1, 2, 1, 8), torch.randn(1, 1, 10, 8)
    stack = build_stack([{"name": "sink", "sink_size": 2}, {"name": "local", "window_size": 2}])
    nothing = select(stack, q, k, k, mask=torch.zeros(1, 10, dtype=torch.bool))
    for backend in ("gather", "reference"):
        assert torch.equal(attend(q, k, k, nothing, backend=backend), torch.zeros(1, 1, 2, 8))
    empty = select(build_stack([{"name": "sink", "sink_size": 0}]), q, k, k)
    for backend in ("gather", "reference"):
        with pytest.raises(SahubError, match=r"nothing (is )?selected"):
            attend(q, k, k, empty, backend=backend)


def test_a_further_mask_only_takes_keys_away():
    torch.manual_seed(0)
    q, k = torch.randn(1, 2, 3, 8), torch.randn(1, 1, 10, 8)
    padding = torch.ones(1, 10, dtype=torch.bool)
    padding[:, :4] = False
    everything = select(build_stack([{"name": "dense"}]), q, k, k, mask=padding)
    expected = attend(q, k, k, everything)
    for backend in ("gather", "reference"):
        again = attend(q, k, k, everything, mask=torch.ones(1, 10, dtype=torch.bool), backend=backend)
        assert torch.allclose(again, expected, atol=1e-6)


@pytest.mark.parametrize("kept", range(1, 9))
@pytest.mark.parametrize("width", [16, 20])
def test_an_infinite_value_is_infinite_wherever_it_stands(kept, width):
    q, k = torch.zeros(1, 1, 1, 16), torch.randn(1, 1, 12, 16)
    selection = Selection.none(rows_of(q, k, None), 1, 1).of(
        torch.arange(kept).view(1, 1, 1, -1), torch.zeros(1, 1, 1, kept)
    )
    for at in range(12):
        v = torch.ones(1, 1, 12, width)
        v[0, 0, at] = float("inf")
        expected = float("inf") if at < kept else 1.0
        assert attend(q, k, v, selection).flatten().tolist() == pytest.approx([expected] * width)
