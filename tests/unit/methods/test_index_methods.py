"""Methods with an index of codes against their formulas, written out key by key in plain Python."""

import json
import math
from functools import cache
from itertools import pairwise

import pytest
import torch
from commands import python
from hash_files import hash_fields, hash_tensors

from sahub.attention.attend import attend
from sahub.attention.call import Geometry
from sahub.builders.build import build_stack, select
from sahub.errors import ConfigError
from sahub.index.kmeans import Finite, kmeans, nearest
from sahub.index.packed_bits import Planes, to_bits

D, SINKS, HEAVY = 8, 2, 5
SHAPES = {  # query heads, KV heads, rows, keys, padding of the second sequence
    "gqa": (4, 2, 1, 40, 0),
    "gqa, several rows": (4, 2, 5, 40, 0),
    "padded": (4, 2, 3, 33, 11),
    "mqa": (3, 1, 2, 30, 4),
    "mha": (2, 2, 4, 28, 0),
}
every_shape = pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES.keys())


def inputs(shape, seed=0):
    heads, kv_heads, rows, keys, pad = shape
    noise = torch.Generator().manual_seed(seed)
    q = torch.randn(2, heads, rows, D, generator=noise) * 2
    k, v = (torch.randn(2, kv_heads, keys, width, generator=noise) for width in (D, 6))
    return q, k, v, torch.arange(keys) >= torch.tensor([[0], [pad]])


def state_of(stack, q, k, v, mask, layer=0):
    """A state fed in uneven chunks, its prefix ended before the rows."""
    state = stack.new_state(layer=layer, seed=3, example=1)
    prefix = k.shape[2] - q.shape[2]
    for start, end in ((0, 7), (7, prefix), (prefix, prefix + 1), (prefix + 1, k.shape[2])):
        state.append(k[:, :, start:end], v[:, :, start:end], mask[:, start:end])
        if end == prefix:
            state.freeze()
    return state


def check(stage, shape, score, layer=0):
    """The stack sink + stage keeps, and answers with, the keys of the highest `score(b, h, row, j, index)`."""
    q, k, v, mask = inputs(shape)
    stack = build_stack([{"name": "sink", "sink_size": SINKS}, {**stage, "heavy_size": HEAVY}])
    state = state_of(stack, q, k, v, mask, layer)
    chosen = state.select(q, k, v)
    dense = chosen.probabilities()
    out = attend(q, k, v, chosen)
    group = q.shape[1] // k.shape[1]
    for b in range(2):
        for h in range(q.shape[1]):
            for row in range(q.shape[2]):
                position = k.shape[2] - q.shape[2] + row
                seen = [j for j in range(position + 1) if mask[b, j]]
                free = sorted(seen[SINKS:], key=lambda j: (-score(b, h, row, j, state.indexes[1]), -j))
                wanted = sorted([*seen[:SINKS], *free[:HEAVY]])
                assert [j for j, p in enumerate(dense[b, h, row].tolist()) if p] == wanted, (b, h, row)
                z = (k[b, h // group, wanted].double() @ q[b, h, row].double()) / math.sqrt(D)
                expected = torch.softmax(z, 0) @ v[b, h // group, wanted].double()
                torch.testing.assert_close(out[b, row, h].double(), expected, rtol=1e-5, atol=1e-6)
    return q, k, v, mask


def label(values: list[float], bits: int) -> list[float]:
    """Quantised as methods of this kind do, in single precision."""
    x = torch.tensor(values)
    if bits == 16:
        return x.tolist()
    low, high = x.min(), x.max()
    step = (2**bits - 1) / (high - low) if high > low else torch.tensor(1.0)
    return (((x - low) * step).round().clamp(0, 2**bits - 1) / step + low).tolist()


def file_of_channels(folder, heads, layers=3, name="q_proj", width=D, seed=0):
    noise = torch.Generator().manual_seed(seed)
    lists = {
        f"model.layers.{i}.self_attn.{name}": [torch.randperm(width, generator=noise).tolist() for _ in range(heads)]
        for i in range(layers)
    }
    file = folder / "channels.json"
    file.write_text(json.dumps({**lists, "model.layers.0.mlp.down_proj": [[0]]}))
    return str(file), [lists[f"model.layers.{i}.self_attn.{name}"] for i in range(layers)]


@every_shape
@pytest.mark.parametrize(("group_factor", "bits"), [(2, 1), (2, 2), (2, 4), (4, 3), (4, 8), (1, 16), (8, 16)])
def test_double_sparsity_ranks_by_the_labels_of_the_listed_channels(shape, group_factor, bits, tmp_path):
    file, lists = file_of_channels(tmp_path, shape[0])
    q, k, _, _ = inputs(shape)
    group = shape[0] // shape[1]

    def score(b, h, row, j, index):
        channels = lists[1][h][: D // group_factor]
        known = label([float(k[b, h // group, j, c]) for c in channels], bits)
        return round(sum(float(q[b, h, row, c]) * x for c, x in zip(channels, known, strict=True)), 5)

    stage = {"name": "double_sparsity", "group_factor": group_factor, "label_bits": bits}
    check({**stage, "sorted_channel_file": file, "channel_selection": "q_proj"}, shape, score, layer=1)


@every_shape
def test_double_sparsity_without_a_file_takes_the_largest_channels_of_the_prefix(shape):
    q, k, _, mask = inputs(shape)
    group, prefix = shape[0] // shape[1], shape[3] - shape[2]

    @cache
    def chosen(b, g):
        size = [sum(abs(float(k[b, g, i, c])) for i in range(prefix) if mask[b, i]) for c in range(D)]
        return sorted(range(D), key=lambda c: (-size[c], c))[:4]

    def score(b, h, row, j, index):
        g, channels = h // group, chosen(b, h // group)
        known = label([float(k[b, g, j, c]) for c in channels], 4)
        return round(sum(float(q[b, h, row, c]) * x for c, x in zip(channels, known, strict=True)), 5)

    check({"name": "double_sparsity", "group_factor": 2, "label_bits": 4}, shape, score)


def test_double_sparsity_can_share_a_list_among_the_heads_of_a_group(tmp_path):
    shape = SHAPES["gqa, several rows"]
    file, lists = file_of_channels(tmp_path, 4, name="qk_proj")
    q, k, _, _ = inputs(shape)

    def score(b, h, row, j, index):
        heads = [2 * (h // 2), 2 * (h // 2) + 1]
        ranks = {c: sum(lists[0][one].index(c) for one in heads) for c in range(D)}
        channels = sorted(range(D), key=lambda c: (ranks[c], c))[:4]
        return round(sum(float(q[b, h, row, c]) * float(k[b, h // 2, j, c]) for c in channels), 5)

    stage = {"name": "double_sparsity", "group_factor": 2, "label_bits": 16, "sorted_channel_file": file}
    check({**stage, "channel_sharing": "group"}, shape, score)
    per_head, group = (
        build_stack([{**stage, "density": 0.1, "channel_sharing": sharing}]).aux_bits(Geometry(3, 4, 2, D), 100)
        for sharing in ("per_head", "group")
    )
    assert (per_head, group) == (2 * 4 * 16, 4 * 16)


@every_shape
@pytest.mark.parametrize(("parts", "bits", "metric"), [(2, 3, "euclidean"), (4, 2, "ip"), (1, 4, "euclidean")])
def test_pqcache_ranks_by_the_centroids_that_the_codes_name(shape, parts, bits, metric):
    q, _, _, _ = inputs(shape)
    group, width = shape[0] // shape[1], D // parts

    def score(b, h, row, j, index):
        total = 0.0
        for s in range(parts):
            code = int(index.codes[b, h // group, s, j])
            centroid = index.centroids[b, h // group, s, code].tolist()[:width]
            total += sum(x * y for x, y in zip(q[b, h, row, s * width :].tolist(), centroid, strict=False))
        return round(total, 5)

    check({"name": "pqcache", "pq_group_factor": parts, "pq_bits": bits, "metric": metric}, shape, score)


@pytest.mark.parametrize("metric", ["euclidean", "ip"])
def test_codes_name_the_nearest_centroid_of_prefix_and_later_keys(metric):
    q, k, v, mask = inputs((2, 2, 6, 90, 20))
    k[:, :, -1] *= 5  # longer than every key of the prefix
    stack = build_stack([{"name": "pqcache", "density": 0.2, "pq_group_factor": 2, "pq_bits": 3, "metric": metric}])
    index = state_of(stack, q, k, v, mask).indexes[0]
    for b, g, s in ((b, g, s) for b in range(2) for g in range(2) for s in range(2)):
        part = k[b, g, :, s * 4 : s * 4 + 4]
        if metric == "ip":
            prefix = part[:84][mask[b, :84]]
            rest = (prefix.square().sum(-1).max() - part.square().sum(-1)).clamp(min=0).sqrt()
            part = torch.cat([part, rest[:, None]], dim=-1)
        far = (part[:, None].double() - index.centroids[b, g, s].double()).square().sum(-1)
        assert torch.equal(far.argmin(-1).int(), index.codes[b, g, s])
        used = index.codes[b, g, s, :84][mask[b, :84]].unique()
        assert used.numel() == 8  # no centroid is left over


def test_a_seed_gives_the_same_centroids_and_another_one_others():
    _, k, v, _ = inputs((2, 2, 1, 90, 0))
    stage = [{"name": "pqcache", "density": 0.2, "pq_group_factor": 2, "pq_bits": 4}]

    def learned(**ids):
        state = build_stack(stage).new_state(**{"layer": 0, "seed": 0, "example": 0, **ids})
        state.append(k, v)
        state.freeze()
        return state.indexes[0].centroids

    assert torch.equal(learned(), learned())
    assert all(not torch.equal(learned(), learned(**ids)) for ids in ({"seed": 1}, {"example": 1}, {"layer": 1}))


def test_kmeans_finds_separated_clusters_and_keeps_to_its_points():
    noise = torch.Generator().manual_seed(0)
    centres = torch.tensor([[[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]]])
    points = (centres[:, :, None] + 0.1 * torch.randn(1, 3, 50, 2, generator=noise)).flatten(1, 2)
    for seed in range(8):
        found = kmeans(points, 3, 20, seed)
        again = kmeans(points, 3, 20, seed)
        assert torch.equal(found, again)
        error = (points - found[0, nearest(points, Finite.of(found))[0]]).square().sum(-1).mean()
        start = kmeans(points, 3, 0, seed)
        assert error <= (points - start[0, nearest(points, Finite.of(start))[0]]).square().sum(-1).mean()
    few = kmeans(points[:, :2], 4, 5, 0)
    assert few.isinf().all(-1).sum() == 2
    assert nearest(points[:, :2], Finite.of(few)).unique().numel() == 2


@every_shape
@pytest.mark.parametrize("heads", ["per query head", "per KV head", "one for all"])
def test_hash_attention_ranks_by_the_bits_that_agree(shape, heads, tmp_path):
    several = {"per query head": shape[0], "per KV head": shape[1], "one for all": 1}[heads]
    q, k, _, _ = inputs(shape)
    group = shape[0] // shape[1]
    fields = hash_fields(tmp_path, heads=several, head_dim=D)
    weights = hash_tensors(heads=several, head_dim=D)

    def signature(x, side, head):
        for i in range(2):
            at = f"layers.1.{side}.{i}"
            x = x if i == 0 else x / (1 + torch.exp(-x))
            x = x.double() @ weights[f"{at}.weight"][head].double() + weights[f"{at}.bias"][head].double()
        return [1 if float(one) >= 0 else -1 for one in x]

    kept = {}

    def score(b, h, row, j, index):
        head = h * several // shape[0]
        for key, x, side in ((("q", b, h, row), q[b, h, row], "query"), (("k", b, h, j), k[b, h // group, j], "key")):
            if key not in kept:
                kept[key] = signature(x, side, head)
        return sum(x * y for x, y in zip(kept["q", b, h, row], kept["k", b, h, j], strict=True))

    check({"name": "hash_attention", **fields}, shape, score, layer=1)


def test_hash_attention_refuses_weights_of_other_heads(tmp_path):
    """Those of 4 heads, for 8 query heads over 2 KV heads: each KV head has two signatures, and four ask."""
    stack = build_stack([{"name": "hash_attention", "density": 0.1, **hash_fields(tmp_path, heads=4, head_dim=D)}])
    q, k = torch.randn(1, 8, 1, D), torch.randn(1, 2, 40, D)
    with pytest.raises(ConfigError, match=r"weights=.*: are for 4 heads, not for 8 \(KV: 2\)"):
        select(stack, q, k, k)


def from_bits(bits, width):
    places = torch.arange(width, dtype=torch.int32)[:, None]
    return (bits.int().unflatten(-2, (-1, width)) << places).sum(-2, dtype=torch.int32)


def test_packed_bits_come_back_whatever_the_chunks():
    noise = torch.Generator().manual_seed(0)
    for width in (1, 3, 4, 8, 11):
        codes = torch.randint(0, 2**width, (2, 3, 5, 77), generator=noise, dtype=torch.int32)
        planes = Planes()
        for chunk in codes.split([1, 7, 8, 30, 2, 29], dim=3):
            planes.append(to_bits(chunk, width))
        twin = planes.fork()
        assert torch.equal(from_bits(planes.bits(), width), codes)
        planes.truncate(21)
        planes.append(to_bits(codes[..., 50:60], width))
        back = torch.cat([codes[..., :21], codes[..., 50:60]], dim=-1)
        assert torch.equal(from_bits(planes.bits(), width), back)
        assert torch.equal(from_bits(twin.bits(), width), codes)
        assert planes.nbytes == 2 * 3 * 5 * width * 4


INDEXES = {
    "double_sparsity 4 bits": {"name": "double_sparsity", "group_factor": 8, "label_bits": 4},
    "double_sparsity 16 bits": {"name": "double_sparsity", "group_factor": 16, "label_bits": 16},
    "double_sparsity file": {"name": "double_sparsity", "group_factor": 4, "label_bits": 2},
    "pqcache": {"name": "pqcache", "pq_group_factor": 2, "pq_bits": 6, "kmeans_iter": 1},
    "pqcache ip": {"name": "pqcache", "pq_group_factor": 4, "pq_bits": 5, "metric": "ip", "kmeans_iter": 1},
    "hash_attention": {"name": "hash_attention"},
    "snapkv": {"name": "snapkv", "window_size": 8},
    "tova": {"name": "tova", "window_size": 8},
    "expected_attention": {"name": "expected_attention", "window_size": 8},
}


@pytest.mark.parametrize("name", INDEXES)
def test_an_index_holds_the_bits_that_it_reports(name, tmp_path):
    heads, kv_heads, width, keys = 4, 2, 64, 4096
    stage = {**INDEXES[name], "density": 0.1}
    if "file" in name:
        stage["sorted_channel_file"] = file_of_channels(tmp_path, heads, name="qk_proj", width=width)[0]
    if "hash" in name:
        stage |= hash_fields(tmp_path, heads=heads, head_dim=width, layers=3)
    stack = build_stack([stage])
    geometry = Geometry(num_layers=3, num_heads=heads, num_kv_heads=kv_heads, head_dim=width)
    stack.check(geometry)
    k = torch.randn(1, kv_heads, keys, width, generator=torch.Generator().manual_seed(0)).bfloat16()
    state = stack.new_state(layer=0)
    state.append(k[:, :, :-8], k[:, :, :-8])
    state.freeze()
    state.append(k[:, :, -8:], k[:, :, -8:])
    state.select(k[:, :, -8:].repeat_interleave(2, dim=1), k, k)
    index = state.indexes[0]
    held = index.code_bytes * 8 / (keys * kv_heads)
    assert held == pytest.approx(stack.aux_bits(geometry, keys), rel=0.02)


GEOMETRY = Geometry(num_layers=3, num_heads=4, num_kv_heads=2, head_dim=D)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda tree: tree.pop("model.layers.1.self_attn.q_proj"),
            "of 2 layers (without layer 1), 4 heads and head_dim 8; the",
        ),
        (
            lambda tree: tree["model.layers.1.self_attn.q_proj"][2].append(0),
            "q_proj[2]: must hold each channel",
        ),
        (lambda tree: tree["model.layers.0.self_attn.q_proj"][0].__setitem__(0, 99), "q_proj[0]: must hold each"),
        (lambda tree: tree["model.layers.2.self_attn.q_proj"].pop(), "has 3 lists of 8 channels, layer 0 has 4 of 8"),
        (
            lambda tree: tree.pop("model.layers.2.self_attn.q_proj"),
            "of 2 layers (without layer 2), 4 heads and head_dim 8; the model has 3 that can be sparse, 4 and 8",
        ),
        (lambda tree: tree.clear(), "has no model.layers.N.self_attn.q_proj"),
    ],
)
def test_a_wrong_channel_file_fails_by_name(change, message, tmp_path):
    file, _ = file_of_channels(tmp_path, 4)
    tree = json.loads((tmp_path / "channels.json").read_text())
    change(tree)
    (tmp_path / "channels.json").write_text(json.dumps(tree))
    stage = {"name": "double_sparsity", "density": 0.1, "group_factor": 2, "channel_selection": "q_proj"}
    with pytest.raises(ConfigError) as caught:
        build_stack([{**stage, "sorted_channel_file": file}]).check(GEOMETRY)
    assert message in str(caught.value)
    assert "sorted_channel_file=" in str(caught.value)


def test_channel_files_that_are_no_files_of_channels_fail_by_name(tmp_path):
    stage = {"name": "double_sparsity", "density": 0.1}
    for content, message in (("{", "is not JSON"), ("[]", "must be a JSON object"), (None, "pipelines.calibrate")):
        file = tmp_path / "odd.json"
        if content is None:
            file.unlink()
        else:
            file.write_text(content)
        with pytest.raises(ConfigError, match=message):
            build_stack([{**stage, "sorted_channel_file": str(file)}])


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"name": "double_sparsity", "group_factor": 3}, "DoubleSparsity.group_factor=3: must divide head_dim=8"),
        ({"name": "double_sparsity", "group_factor": 16}, "DoubleSparsity.group_factor=16: must divide head_dim=8"),
        ({"name": "pqcache", "pq_group_factor": 3}, "PQCache.pq_group_factor=3: must divide head_dim=8"),
    ],
)
def test_parts_that_do_not_divide_the_head_fail_by_name(stage, message):
    stack = build_stack([{**stage, "density": 0.1}])
    with pytest.raises(ConfigError, match=message):
        stack.check(GEOMETRY)
    k = torch.randn(1, 2, 20, D)
    with pytest.raises(ConfigError, match=message.partition(".")[2]):
        select(stack, torch.randn(1, 4, 1, D), k, k)


def test_another_file_of_the_same_name_is_another_stage(tmp_path):
    file, _ = file_of_channels(tmp_path, 4)
    stage = {"name": "double_sparsity", "density": 0.1, "channel_selection": "q_proj", "sorted_channel_file": file}
    first = build_stack([stage])
    file_of_channels(tmp_path, 4, seed=1)
    second = build_stack([stage])
    assert repr(first) != repr(second)
    assert first.index_keys() != second.index_keys()


def attention(q, k, valid, position):
    """Softmax of one query over the valid keys up to its own, in plain Python."""
    z = [math.exp(float(q @ key) / math.sqrt(D)) if valid[j] and j <= position else 0.0 for j, key in enumerate(k)]
    return [x / sum(z) if sum(z) else 0.0 for x in z]


@every_shape
@pytest.mark.parametrize(("window", "kernel", "pooling"), [(32, 1, "avg"), (2, 3, "avg"), (3, 5, "max")])
def test_snapkv_ranks_the_prefix_by_what_its_observers_attend_to(shape, window, kernel, pooling):
    q, k, _, mask = inputs(shape)
    group, start = shape[0] // shape[1], shape[3] - shape[2]
    known = {}

    def ranked(b, h, row):
        shares = [
            attention(q[b, h, r].double(), k[b, h // group].double(), mask[b], start + r)
            for r in range(min(row + 1, window))
        ]
        means = [sum(share[j] for share in shares) / len(shares) for j in range(start)]
        near = [[means[i] for i in range(j - kernel // 2, j + kernel // 2 + 1) if 0 <= i < start] for j in range(start)]
        return [max(x) if pooling == "max" else sum(x) / kernel for x in near]

    def score(b, h, row, j, index):
        if j >= start:
            return 1.0 + j
        if (b, h, row) not in known:
            known[b, h, row] = ranked(b, h, row)
        return known[b, h, row][j]

    check({"name": "snapkv", "window_size": window, "kernel_size": kernel, "pooling": pooling}, shape, score)


@every_shape
@pytest.mark.parametrize("window", [1, 2, 32])
def test_tova_ranks_the_prefix_by_what_the_last_observer_attends_to_with_all_heads(shape, window):
    q, k, _, mask = inputs(shape)
    heads, start = shape[0], shape[3] - shape[2]

    @cache
    def mean(b, at):
        rows = [attention(q[b, h, at].double(), k[b, h * shape[1] // heads].double(), mask[b], start + at)
                for h in range(heads)]  # fmt: skip
        return [sum(row[j] for row in rows) / heads for j in range(start)]

    def score(b, h, row, j, index):
        return 1.0 + j if j >= start else mean(b, max(0, min(row, window) - 1))[j]

    check({"name": "tova", "window_size": window}, shape, score)


@every_shape
@pytest.mark.parametrize(("window", "rank"), [(1, "score"), (3, "value_weighted"), (32, "score")])
def test_expected_attention_ranks_the_prefix_by_the_mean_of_a_lognormal_weight(shape, window, rank):
    q, k, v, _ = inputs(shape)
    group, start = shape[0] // shape[1], shape[3] - shape[2]

    def score(b, h, row, j, index):
        if j >= start:
            return 1e9 + j
        key, queries = k[b, h // group, j].double(), q[b, h, : min(row + 1, window)].double()
        z = [float(query @ key) / math.sqrt(D) for query in queries]
        mean = sum(z) / len(z)
        weight = math.exp(mean + sum((x - mean) ** 2 for x in z) / len(z) / 2)
        return weight * float(v[b, h // group, j].double().norm()) if rank == "value_weighted" else weight

    check({"name": "expected_attention", "window_size": window, "rank": rank}, shape, score)


@pytest.mark.parametrize(("name", "settled"), [("snapkv", 2), ("tova", 3), ("expected_attention", 2)])
def test_keep_sets_stand_once_their_observers_are_over(name, settled):
    q, k, v, _ = inputs((2, 2, 12, 60, 0))
    state = build_stack([{"name": name, "heavy_size": 8, "window_size": 4}]).new_state(layer=0)
    state.append(k[:, :, :48], v[:, :, :48])
    state.freeze()
    kept = []
    for row in range(12):
        part = slice(48 + row, 49 + row)
        state.append(k[:, :, part], v[:, :, part])
        if row == 1:  # attended to everything, as with protocol.question=dense
            state.observe(q[:, :, row, None], k[:, :, : part.stop], v[:, :, : part.stop])
            continue
        dense = state.select(q[:, :, row, None], k[:, :, : part.stop], v[:, :, : part.stop]).probabilities()
        kept.append(dense[..., :48].flatten(0, 2) > 0)
        assert dense[..., 48:].all() or row >= 8
    assert state.indexes[0].code_bytes == 4 * 2 * 2 * D * 4  # observers, sequences, heads, channels, fp32
    for before, after in pairwise(kept[settled:]):  # what later keys need leaves, nothing comes back
        assert not (after & ~before).any()
    assert (kept[0] & ~kept[2]).any()


PEAK = """
import resource, torch
from sahub.builders.build import build_stack
torch.set_num_threads(1)
fields = {"pq_bits": 6, "pq_group_factor": 2, "kmeans_iter": 2, "metric": "METRIC", "heavy_size": 100}
state = build_stack([{"name": "pqcache", **fields}]).new_state(layer=0)
k = torch.randn(1, 8, 32768, 128)
state.append(k, k)
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
state.freeze()
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""


@pytest.mark.parametrize("metric", ["euclidean", "ip"])
def test_codes_of_long_contexts_are_made_in_bounded_memory(metric, tmp_path):
    done = python("-c", PEAK.replace("METRIC", metric), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < 2**20  # KiB: 1 GiB
