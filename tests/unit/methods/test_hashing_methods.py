"""MagicPIG and SOCKET against their formulas, written out key by key with the planes given."""

import itertools
import math

import pytest
import torch

from sahub.attention.call import Geometry
from sahub.builders.build import build_stack, select
from sahub.errors import ConfigError
from sahub.index.lsh import normals

CPU = torch.device("cpu")
SINK = {"name": "sink", "sink_size": 2}


def call(keys=60, rows=2, dim=8, heads=4, kv_heads=2, seed=0, shift=1.0):
    """q, k, v; the keys have a mean, as real ones do."""
    chance = torch.Generator().manual_seed(seed)
    q = torch.randn(1, heads, rows, dim, generator=chance)
    k = torch.randn(1, kv_heads, keys, dim, generator=chance) + shift
    return q, k, torch.randn(1, kv_heads, keys, dim, generator=chance)


def codes(x, planes, width):
    """One tuple of bits per table."""
    bits = [sum(a * b for a, b in zip(x, column, strict=True)) > 0 for column in planes.T.tolist()]
    return [tuple(bits[i : i + width]) for i in range(0, len(bits), width)]


def norm(x):
    return math.sqrt(sum(a * a for a in x))


def reference_chances(q, k, prefix, *, tables, width, min_hits=2, center="keys", transform="none", layer=0, seed=0):
    """P(kept) of the keys that are found, 0 for the others: [heads][rows][keys]."""
    heads, rows, dim = q.shape[1:]
    planes = normals(seed, layer, dim + (transform == "simple_lsh"), tables * width, CPU)

    def chance(other, direction, top):
        """Of a centred key and a query."""
        if transform == "simple_lsh":
            other = [*other, math.sqrt(max(0.0, top**2 - norm(other) ** 2))]
            direction = [*direction, 0.0]
        same = zip(codes(other, planes, width), codes(direction, planes, width), strict=True)
        if sum(a == b for a, b in same) < min_hits:
            return 0.0
        cosine = sum(a * b for a, b in zip(other, direction, strict=True)) / norm(other) / norm(direction)
        p = (1 - math.acos(max(-1, min(1, cosine))) / math.pi) ** width
        return max(1e-4, 1 - sum(math.comb(tables, i) * p**i * (1 - p) ** (tables - i) for i in range(min_hits)))

    result = torch.zeros(1, heads, rows, k.shape[2])
    for head in range(heads):
        keys = k[0, head * k.shape[1] // heads].tolist()
        means = [sum(column) / prefix for column in zip(*keys[:prefix], strict=True)]
        centred = [[a - b * (center == "keys") for a, b in zip(key, means, strict=True)] for key in keys]
        top = 1.1 * max(map(norm, centred[:prefix]))
        for row in range(rows):
            seen = centred[: k.shape[2] - rows + row + 1]
            result[0, head, row, : len(seen)] = torch.tensor([chance(x, q[0, head, row].tolist(), top) for x in seen])
    return result


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"min_hits": 1, "transform": "simple_lsh"},
        {"min_hits": 3, "center": "none"},
        {"lsh_l": 7, "lsh_k": 5, "min_hits": 1},
    ],
)
def test_magic_pig_keeps_what_the_tables_find(fields):
    fields = {"lsh_l": 20, "lsh_k": 4, **fields}
    q, k, v = call()
    selection = select(build_stack([{"name": "magic_pig", **fields}]), q, k, v, layer=3, seed=5)
    named = {"tables": fields["lsh_l"], "width": fields["lsh_k"]}
    named |= {name: value for name, value in fields.items() if not name.startswith("lsh")}
    expected = reference_chances(q, k, 58, layer=3, seed=5, **named)
    found = selection.probabilities()
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)  # |k'| is held in fp16
    assert 0.02 < float(selection.density()) < 0.9


@pytest.mark.parametrize("fields", [{}, {"min_hits": 1, "transform": "simple_lsh"}, {"min_hits": 1, "center": "none"}])
def test_magic_pig_is_unbiased_over_planes(fields):
    q, k, v = call(keys=120, rows=1, heads=1, kv_heads=1, shift=0.5)
    stack = build_stack([{"name": "magic_pig", "lsh_l": 12, "lsh_k": 4, **fields}])
    e = (q @ k.transpose(-1, -2)).double().mul(0.3).exp()
    found = []
    for seed in range(600):
        chances = select(stack, q, k, v, scale=0.3, seed=seed).probabilities().double()
        found.append(float((e * torch.where(chances > 0, 1 / chances, 0.0)).sum() / e.sum()) - 1)
    errors = torch.tensor(found)
    assert abs(errors.mean()) < 3 * errors.std() / math.sqrt(len(errors))


def test_magic_pig_keeps_earlier_keys_for_certain():
    q, k, v = call()
    selection = select(build_stack([SINK, {"name": "magic_pig", "lsh_l": 20, "lsh_k": 2}]), q, k, v)
    chances = selection.probabilities()
    assert (chances[..., :2] == 1).all()
    assert ((chances[..., 2:] > 0) & (chances[..., 2:] < 1)).any()


def test_magic_pig_takes_a_key_without_a_direction_as_orthogonal():
    q, k, v = call(keys=12, shift=0.0)
    k[:] = 0
    fields = {"lsh_l": 8, "lsh_k": 2, "min_hits": 1}
    chances = select(build_stack([SINK, {"name": "magic_pig", **fields}]), q, k, v).probabilities()
    found = chances[..., 2:][chances[..., 2:] > 0]
    assert len(found) > 0
    assert found.tolist() == pytest.approx([1 - (1 - 0.5**2) ** 8] * len(found))


def test_keys_larger_than_any_of_the_prefix_stay_on_the_sphere():
    q, k, v = call()
    k[:, :, -1] *= 50
    stage = {"name": "magic_pig", "lsh_l": 30, "lsh_k": 3, "min_hits": 1, "transform": "simple_lsh"}
    expected = reference_chances(q, k, 58, tables=30, width=3, min_hits=1, transform="simple_lsh")
    found = select(build_stack([stage]), q, k, v).probabilities()
    assert torch.equal(found > 0, expected > 0)
    torch.testing.assert_close(found, expected, rtol=5e-3, atol=0)


def reference_scores(q, k, v, *, tables, width, tau, layer=0, seed=0):
    """SOCKET's scores with the softmax over all buckets written out: [heads][rows][keys]."""
    heads, rows, dim = q.shape[1:]
    planes = normals(seed, layer, dim, tables * width, CPU)
    corners = list(itertools.product((False, True), repeat=width))
    result = torch.zeros(1, heads, rows, k.shape[2])
    for head, row in itertools.product(range(heads), range(rows)):
        kv_head = head * k.shape[1] // heads
        soft = [math.tanh(x) / math.sqrt(dim) for x in (q[0, head, row].double() @ planes.double()).tolist()]
        tails = []
        for table in range(tables):
            h = soft[table * width : (table + 1) * width]
            mass = {c: math.exp(sum(a if b else -a for a, b in zip(h, c, strict=True)) / tau) for c in corners}
            tails.append({c: value / sum(mass.values()) for c, value in mass.items()})
        for j in range(k.shape[2]):
            buckets = codes(k[0, kv_head, j].tolist(), planes, width)
            size = float(torch.tensor(norm(v[0, kv_head, j].tolist())).half())  # as it is held
            result[0, head, row, j] = sum(p[c] for p, c in zip(tails, buckets, strict=True)) * size
    return result


@pytest.mark.parametrize(("tables", "width", "tau"), [(5, 4, 0.3), (3, 1, 0.05), (9, 3, 0.7)])
def test_socket_keeps_the_best_scores(tables, width, tau):
    q, k, v = call(keys=40)
    stage = {"name": "socket", "heavy_size": 9, "lsh_l": tables, "lsh_k": width, "tau": tau}
    found = select(build_stack([SINK, stage]), q, k, v, layer=1, seed=2).probabilities()
    scores = reference_scores(q, k, v, tables=tables, width=width, tau=tau, layer=1, seed=2)
    for head, row in itertools.product(range(4), range(2)):
        order = sorted(range(2, 39 + row), key=lambda j: (-float(scores[0, head, row, j]), -j))
        assert set(found[0, head, row].nonzero().flatten().tolist()) == {0, 1, *order[:9]}


def test_socket_prefers_the_keys_of_large_products():
    q, k, v = call(keys=2000, rows=1, dim=32, heads=2, kv_heads=1, shift=0.0)
    v = torch.nn.functional.normalize(v, dim=-1)
    oracle = select(build_stack([{"name": "oracle_top_k", "heavy_size": 50}]), q, k, v).probabilities()
    hits = []
    for tables in (5, 60, 400):
        stage = {"name": "socket", "heavy_size": 200, "lsh_l": tables, "lsh_k": 8, "tau": 0.3}
        hits.append(float((oracle * select(build_stack([stage]), q, k, v).probabilities()).sum() / oracle.sum()))
    assert hits[0] < hits[1] < hits[2]
    assert hits[2] > 0.8


@pytest.mark.parametrize(
    ("stage", "bits"),
    [
        ({"name": "magic_pig", "lsh_l": 75, "lsh_k": 8}, 75 * 8 + 16),
        ({"name": "magic_pig", "lsh_l": 50, "lsh_k": 9, "transform": "simple_lsh"}, 50 * 9 + 16),
        ({"name": "socket", "density": 0.1, "lsh_l": 55, "lsh_k": 11}, 55 * 11 + 16),
        ({"name": "socket", "density": 0.1, "lsh_l": 20, "lsh_k": 4}, 20 * 4 + 16),
    ],
)
@pytest.mark.parametrize("length", [1000, 1024])
def test_bits_are_the_bytes_that_are_held(stage, bits, length):
    stack = build_stack([SINK, stage])
    assert stack.aux_bits(Geometry(num_layers=2, num_heads=8, num_kv_heads=2, head_dim=16), length) == bits
    _, k, v = call(keys=length, dim=16)
    state = stack.new_state(layer=0)
    state.append(k[:, :, :900], v[:, :, :900])
    state.freeze()
    for i in range(900, length, 25):
        state.append(k[:, :, i : i + 25], v[:, :, i : i + 25])
    held = getattr(state.indexes[1], "code_bytes", state.indexes[1].nbytes) * 8 / (length * 2)
    assert held == pytest.approx(bits, rel=0.02)


def test_planes_differ_between_layers_and_seeds_and_repeat():
    one = normals(0, 0, 8, 40, CPU)
    assert torch.equal(one, normals.__wrapped__(0, 0, 8, 40, CPU))
    assert not torch.equal(one, normals(0, 1, 8, 40, CPU))
    assert not torch.equal(one, normals(1, 0, 8, 40, CPU))


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ({"name": "magic_pig", "lsh_l": 0}, "lsh_l=0: must be at least 1 table"),
        ({"name": "magic_pig", "lsh_k": 65}, "lsh_k=65: must be at most 64 bits a table"),
        ({"name": "magic_pig", "lsh_l": 1}, "min_hits=2: must be at most lsh_l=1 tables"),
        ({"name": "magic_pig", "center": "both"}, "center=both: must be one of keys, none"),
        ({"name": "magic_pig", "transform": "mips"}, "transform=mips: must be one of none, simple_lsh"),
        ({"name": "magic_pig", "headroom": 0.5}, "headroom=0.5: must be at least 1"),
        ({"name": "socket", "density": 0.1, "lsh_k": 0}, "lsh_k=0: must be at least 1 bit a table"),
        ({"name": "socket", "density": 0.1, "lsh_k": 16}, "lsh_k=16: must be at most 15 bits a table"),
        ({"name": "socket", "density": 0.1, "tau": 0}, "tau=0: must be a temperature above 0"),
        ({"name": "socket"}, "exactly one of density, heavy_size and select"),
    ],
)
def test_wrong_fields_are_refused(stage, text):
    with pytest.raises(ConfigError, match=text):
        build_stack([stage])
