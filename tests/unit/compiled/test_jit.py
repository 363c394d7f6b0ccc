"""Compiling where nothing can be kept, products, and doing without."""

import numpy as np
import pytest
import torch

from sahub.attention import attend as attention
from sahub.attention import choose, products
from sahub.attention.attend import attend
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


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("stage", ["quest", "double_sparsity", "pqcache"])
@pytest.mark.parametrize("group", ["none", "max"])
def test_torch_alone_chooses_the_same_keys_and_attends_alike(dtype, stage, group, monkeypatch):
    q, k, v = qkv(dtype=dtype)
    stack = build_stack([{"name": "sink", "sink_size": 4}, {"name": stage, "density": 0.2, "group": group}])
    compiled = select(stack, q, k, v)
    out = attend(q, k, v, compiled)
    for module in (attention, choose, products):
        monkeypatch.setattr(module, "at_hand", lambda: False)
    plain = select(stack, q, k, v)
    assert torch.equal(compiled.probabilities(), plain.probabilities())
    torch.testing.assert_close(out, attend(q, k, v, plain), atol=1e-5, rtol=1e-5 if dtype == torch.float32 else 1e-2)


def test_a_product_does_not_depend_on_what_is_computed_beside_it():
    noise = np.random.default_rng(0)
    rows, keys = (noise.standard_normal(shape).astype(np.float32) for shape in ((1, 2, 3, 80), (2 * 50, 80)))
    keys[70] = keys[50]
    out, alone = np.zeros((1, 2, 3, 50), np.float32), np.zeros((1, 2, 1, 50), np.float32)
    place = np.array([100, 50, 1, 2, 1 << 62, 0])
    none = np.zeros((1, 2, 0, 80), np.float32)
    multiplying()(rows, keys, place, none, out)
    multiplying()(np.ascontiguousarray(rows[:, :, 1:2]), keys, place, none, alone)
    expected = np.einsum("burd,umd->burm", rows.astype(np.float64), keys.reshape(2, 50, 80).astype(np.float64))
    np.testing.assert_allclose(out, expected.astype(np.float32), rtol=1e-6)
    assert (out[:, :, 1:2] == alone).all()
    apart = np.zeros((1, 2, 3, 50), np.float32)
    multiplying()(rows, keys, place, np.ascontiguousarray(keys.reshape(1, 2, 50, 80)[:, :, 49:]), apart)
    assert (apart == out).all()
    assert (out[:, 1, :, 0] == out[:, 1, :, 20]).all()
