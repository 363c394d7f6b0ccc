"""Compiling where nothing can be kept, products, and doing without."""

import importlib
import sys

import numpy as np
import pytest
import torch
from hash_files import hash_fields

from sahub.attention.attend import attend
from sahub.attention.rows import rows_of
from sahub.attention.selection import Selection
from sahub.builders.build import build_stack, select
from sahub.compiled import jit
from sahub.compiled.multiplying import multiplying


def qkv(rows=1, keys=700, dtype=torch.float32):
    noise = torch.Generator().manual_seed(0)
    shapes = (2, 4, rows, 64), (2, 2, keys, 64), (2, 2, keys, 64)
    return [torch.randn(*shape, generator=noise).to(dtype) for shape in shapes]


@pytest.mark.parametrize("problem", [OSError("No space left on device"), RuntimeError("no locator available")])
def test_where_no_cache_can_be_written_each_process_compiles(problem, monkeypatch):
    njit = jit.numba.njit

    def refusing(*arguments, cache=False, **options):
        if cache:
            raise problem
        return njit(*arguments, **options)

    monkeypatch.setattr(jit.numba, "njit", refusing)
    assert jit.compiled(lambda x: x + 1, "int64(int64)")(2) == 3


def without_numba(monkeypatch):
    for name, module in list(sys.modules.items()):
        if name.startswith("sahub.") and hasattr(module, "at_hand"):
            monkeypatch.setattr(module, "at_hand", lambda: False)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", ["quest", "double_sparsity", "pqcache", "hash_attention"])
@pytest.mark.parametrize("group", ["none", "max"])
def test_torch_alone_chooses_the_same_keys_and_attends_alike(dtype, stage, group, monkeypatch, tmp_path):
    q, k, v = qkv(dtype=dtype)
    fields = hash_fields(tmp_path, heads=4, head_dim=64, layers=1) if stage == "hash_attention" else {}
    stages = [{"name": "sink", "sink_size": 4}, {"name": stage, "density": 0.2, "group": group, **fields}]
    compiled = select(build_stack(stages), q, k, v)
    out = attend(q, k, v, compiled)
    without_numba(monkeypatch)
    plain = select(build_stack(stages), q, k, v)
    assert torch.equal(compiled.probabilities(), plain.probabilities())
    torch.testing.assert_close(out, attend(q, k, v, plain), atol=1e-5, rtol=1e-5 if dtype == torch.float32 else 1e-2)


@pytest.mark.parametrize("rows", [1, 5])
@pytest.mark.parametrize(
    "stage",
    [
        {"name": "pqcache", "pq_group_factor": 8, "pq_bits": 4, "density": 0.2},
        {"name": "socket", "lsh_l": 7, "lsh_k": 5, "density": 0.2},
        {"name": "magic_pig", "lsh_l": 9, "lsh_k": 3, "min_hits": 3},
        {"name": "random_sampling", "density": 0.2},
        {"name": "adaptive_sampling", "max_density": 0.3, "base_rate_sampling": 0.05},
    ],
)
def test_torch_alone_scores_and_draws_alike(rows, stage, monkeypatch):
    q, k, v = qkv(rows=rows)
    stages = [{"name": "sink", "sink_size": 4}, stage]
    compiled = select(build_stack(stages), q, k, v)
    without_numba(monkeypatch)
    plain = select(build_stack(stages), q, k, v)
    torch.testing.assert_close(compiled.probabilities(), plain.probabilities(), atol=1e-6, rtol=0)


def whole_numbers(*shape):
    return torch.randint(-1, 2, shape).float()  # so that many scores tie, or nearly


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("group", ["sum", "max"])
def test_many_heads_that_share_choose_alike_row_by_row_and_together(seed, group):
    torch.manual_seed(seed)
    q, k = whole_numbers(1, 12, 2, 80), whole_numbers(1, 2, 1500, 80)
    stages = [{"name": "sink", "sink_size": 4}, {"name": "quest", "page_size": 3, "density": 0.3, "group": group}]
    state = build_stack(stages).new_state(layer=0)
    state.append(k, k)
    state.freeze()
    both, last = state.select(q, k, k), state.select(q[:, :, 1:], k, k)
    assert torch.equal(both.probabilities()[:, :, 1:], last.probabilities())


@pytest.mark.parametrize("rows", [1, 3])
@pytest.mark.parametrize("kv_heads", [1, 2])
@pytest.mark.parametrize("first", [{"name": "oracle_top_k"}, {"name": "quest", "group": "max", "page_size": 4}])
@pytest.mark.parametrize("group", ["none", "max", "sum"])
def test_a_second_choice_after_one_of_other_heads(rows, kv_heads, first, group):
    q, k = torch.randn(1, 4, rows, 16), torch.randn(1, kv_heads, 99, 16)
    second = {"name": "quest", "heavy_size": 8, "page_size": 4, "group": group}
    selection = select(build_stack([{**first, "heavy_size": 5}, second]), q, k, k)
    assert int(selection.counts().min()) >= 8


def test_gradients_and_mixed_dtypes_are_left_to_torch():
    q, k, v = (x.requires_grad_() for x in qkv())
    selection = select(build_stack([{"name": "sink", "sink_size": 4}, {"name": "quest", "density": 0.2}]), q, k, v)
    attend(q, k, v, selection).sum().backward()
    assert float(q.grad.abs().sum()) > 0
    assert float(v.grad.abs().sum()) > 0
    with torch.no_grad():
        out = attend(q, k, v, selection, sinks=torch.nn.Parameter(torch.zeros(4)))
        torch.testing.assert_close(attend(q, k, v.double(), selection, sinks=torch.zeros(4)), out)
    selection = select(build_stack([{"name": "oracle_top_k", "heavy_size": 5}]), q.double(), k.double(), v.double())
    assert int(selection.counts().max()) == 5


@pytest.mark.parametrize("position", [-1, 50, 10**6])
def test_positions_outside_the_keys_are_named(position):
    q, k, v = qkv(keys=50)
    bare = Selection.none(rows_of(q, k, None), 4, 2)
    wrong = bare.of(torch.full((2, 4, 1, 1), position), torch.zeros(2, 4, 1, 1))
    for use in (lambda: attend(q, k, v, wrong), wrong.kv_counts):
        with pytest.raises(IndexError, match="outside the 50 keys"):
            use()


def test_a_damaged_file_of_the_cache_is_compiled_anew(tmp_path, monkeypatch):
    source = tmp_path / "loops.py"
    source.write_text("def twice(x):\n    return 2 * x\n", encoding="utf-8")
    monkeypatch.syspath_prepend(tmp_path)
    function = importlib.import_module("loops").twice
    assert jit.compiled(function, "int64(int64)")(2) == 4
    kept = list(tmp_path.rglob("*.nbi"))
    assert kept
    for file in kept:
        file.write_bytes(b"")
    assert jit.compiled(function, "int64(int64)")(3) == 6


def test_a_product_does_not_depend_on_what_is_computed_beside_it():
    noise = np.random.default_rng(0)
    rows, keys = (noise.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 3, 80), (2 * 50, 80)))
    keys[70] = keys[50]
    out, alone = np.zeros((1, 2, 3, 50), np.float32), np.zeros((1, 2, 1, 50), np.float32)
    place = np.array([100, 50, 1, 2, 1 << 62, 0, 50])
    none = np.zeros((1, 2, 0, 80), np.float32)
    multiplying()(0, 2, rows, keys, place, none, out)
    multiplying()(0, 2, np.ascontiguousarray(rows[:, :, 1:2]), keys, place, none, alone)
    expected = np.einsum("burd,umd->burm", rows.astype(np.float64), keys.reshape(2, 50, 80).astype(np.float64))
    np.testing.assert_allclose(out, expected.astype(np.float32), rtol=1e-6)
    assert (out[:, :, 1:2] == alone).all()
    apart = np.zeros((1, 2, 3, 50), np.float32)
    multiplying()(0, 2, rows, keys, place, np.ascontiguousarray(keys.reshape(1, 2, 50, 80)[:, :, 49:]), apart)
    assert (apart == out).all()
    assert (out[:, 1, :, 0] == out[:, 1, :, 20]).all()
