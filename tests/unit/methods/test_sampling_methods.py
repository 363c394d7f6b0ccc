"""Random and adaptive sampling: unbiased, within their bound, and the same numbers wherever they are drawn."""

import math
from statistics import NormalDist

import pytest
import torch

from sahub.attention.attend import attend
from sahub.attention.call import Call
from sahub.attention.noise import noise
from sahub.attention.rows import rows_of
from sahub.attention.selection import Kind
from sahub.builders.build import build_stack, select
from sahub.errors import ConfigError

SINK, LOCAL = {"name": "sink", "sink_size": 2}, {"name": "local", "window_size": 3}


def gaussian(heads, keys, sd=1.5, dim=16, seed=0, rows=1, kv_heads=None):
    """q, k, v whose logits q.k are normal with this standard deviation."""
    chance = torch.Generator().manual_seed(seed)
    q = torch.nn.functional.normalize(torch.randn(1, heads, rows, dim, generator=chance), dim=-1) * sd
    k, v = (torch.randn(1, kv_heads or heads, keys, dim, generator=chance) for _ in range(2))
    return q, k, v


def weights(selection):
    """1 / p of the kept keys, fp64 [b, h, q, k]."""
    chances = selection.probabilities().double()
    return torch.where(chances > 0, 1 / chances, 0.0)


def sums(q, k, v, selection=None):
    """Softmax denominator and numerator, fp64: of all keys, or as the selection estimates them."""
    e = (q @ k.transpose(-1, -2)).double().exp() * (1.0 if selection is None else weights(selection))
    return e.sum(-1), e @ v.double()


SAMPLERS = {
    "rate": [SINK, {"name": "random_sampling", "sampling_rate": 0.2}],
    "density": [SINK, LOCAL, {"name": "random_sampling", "density": 0.2}],
    "adaptive": [SINK, {"name": "adaptive_sampling", "base_rate_sampling": 8, "epsilon": 0.3}],
    "capped": [SINK, {"name": "adaptive_sampling", "epsilon": 0.1, "max_density": 0.2}],
    "capped below its base": [SINK, {"name": "adaptive_sampling", "base_rate_sampling": 0.5, "max_density": 0.1}],
    "numerator": [SINK, {"name": "adaptive_sampling", "base_rate_sampling": 8, "epsilon": 0.5, "mode": "numerator"}],
    "output": [SINK, {"name": "adaptive_sampling", "base_rate_sampling": 8, "epsilon": 0.5, "mode": "output"}],
}


@pytest.mark.parametrize("stages", SAMPLERS.values(), ids=SAMPLERS.keys())
def test_sums_are_unbiased(stages):
    q, k, v = gaussian(1, 128, sd=2.0)
    v = v + 1.0
    true, whole = sums(q, k, v)
    stack, found, numerators = build_stack(stages), [], []
    for seed in range(500):
        estimate, numerator = sums(q, k, v, select(stack, q, k, v, scale=1.0, seed=seed))
        found.append(float(estimate / true) - 1)
        numerators.append(float((numerator * whole).sum() / whole.square().sum()) - 1)
    for errors in (torch.tensor(found), torch.tensor(numerators)):
        assert errors.std() > 0.01
        assert abs(errors.mean()) < 3 * errors.std() / math.sqrt(len(errors))


def test_every_free_key_is_as_likely_as_its_weight_says():
    q, k, v = gaussian(1, 40)
    stack = build_stack(SAMPLERS["density"])
    drawn = torch.stack([select(stack, q, k, v, seed=seed).probabilities() for seed in range(1500)])
    share = (drawn > 0).float().mean(0).flatten()
    assert (drawn[..., 5] > 0).any()
    chance = float(drawn[drawn > 0].min())
    assert chance == pytest.approx((8 - 5) / 35)  # 20 % of 40 keys, five of them kept, 35 free
    assert (share[:2] == 1).all()
    assert (share[-3:] == 1).all()
    assert (share[2:-3] - chance).abs().max() < 4.5 * math.sqrt(chance * (1 - chance) / 1500)


@pytest.mark.parametrize(("rate", "free", "expected"), [(0.1, 98, 9), (0.29, 98, 28), (0.001, 98, 1), (0.5, 98, 49)])
def test_random_sampling_counts(rate, free, expected):
    q, k, v = gaussian(2, free + 2)
    selection = select(build_stack([SINK, {"name": "random_sampling", "sampling_rate": rate}]), q, k, v)
    assert selection.counts().flatten().tolist() == [expected + 2] * 2
    assert float(weights(selection)[..., 2:].sum(-1)[0, 0, 0]) == pytest.approx(free, rel=1e-6)
    assert not torch.equal(selection.indices[0, 0], selection.indices[0, 1])  # each head its own keys


@pytest.mark.parametrize(
    "stage",
    [
        {"name": "random_sampling", "sampling_rate": 1.0},
        {"name": "random_sampling", "density": 1.0},
        {"name": "adaptive_sampling", "base_rate_sampling": 1.0},
    ],
)
def test_the_whole_rate_is_dense(stage):
    q, k, v = gaussian(2, 30)
    assert select(build_stack([SINK, stage]), q, k, v).kind is Kind.ALL


@pytest.mark.parametrize("fields", [{"base_rate_sampling": 1000}, {"epsilon": 1e-6}])
def test_adaptive_sampling_that_draws_everything_is_exact(fields):
    q, k, v = gaussian(4, 60, rows=3, kv_heads=2)
    selection = select(build_stack([SINK, {"name": "adaptive_sampling", **fields}]), q, k, v, scale=1.0)
    assert selection.probabilities()[0, :, -1].eq(1).all()
    dense = attend(q, k, v, select(build_stack([{"name": "dense"}]), q, k, v), scale=1.0)
    torch.testing.assert_close(attend(q, k, v, selection, scale=1.0), dense)


def test_no_base_sample_means_no_sample():
    q, k, v = gaussian(1, 60)
    selection = select(build_stack([SINK, {"name": "adaptive_sampling", "base_rate_sampling": 0}]), q, k, v)
    assert selection.counts().item() == 2


def reference_drawn(q, k, v, kept, base, mode, epsilon, delta, confidence=0.75):
    """The number of keys drawn beside the base sample, from the formulas."""
    e = [math.exp(float(q @ key)) for key in k]
    x = [[e[j] * float(c) for c in v[j]] for j in range(len(k))]
    free = [j for j in range(len(k)) if j not in kept]
    n, num = len(free), len(base)
    rest, dims = n - num, range(v.shape[1])
    denominator = sum(e[j] for j in kept) + n * sum(e[j] for j in base) / num
    numerator = [sum(x[j][d] for j in kept) + n * sum(x[j][d] for j in base) / num for d in dims]
    output = [value / denominator for value in numerator]

    def variance(terms):
        mean = sum(terms) / num
        return sum((t - mean) ** 2 for t in terms) / (num - 1)

    spread = sum(variance([x[j][d] for j in base]) for d in dims)
    size = math.sqrt(max(0.0, sum(value**2 for value in numerator) - n * rest / num * spread))
    if mode == "denominator":
        sigma, size = math.sqrt(variance([e[j] for j in base])), denominator
    elif mode == "numerator":
        sigma = math.sqrt(spread)
    else:
        sigma = math.sqrt(sum(variance([e[j] * (float(v[j][d]) - output[d]) for j in base]) for d in dims))
    f = num - 1
    chi2 = f * (1 - 2 / (9 * f) + NormalDist().inv_cdf(1 - confidence) * math.sqrt(2 / (9 * f))) ** 3
    b0 = (NormalDist().inv_cdf(1 - delta / 2) * math.sqrt(f / chi2) * sigma * rest / (epsilon * size)) ** 2
    return min(rest, max(1, math.ceil(b0 / (1 + b0 / rest))))


@pytest.mark.parametrize("mode", ["denominator", "numerator", "output"])
def test_adaptive_sampling_draws_what_the_formula_asks_for(mode):
    for seed in range(6):
        q, k, v = gaussian(2, 120, seed=seed)
        v = v + 2
        stage = {"name": "adaptive_sampling", "base_rate_sampling": 0.1, "epsilon": 0.3, "delta": 0.2, "mode": mode}
        top = {"name": "oracle_top_k", "heavy_size": 8}
        selection = select(build_stack([SINK, top, stage]), q, k, v, scale=1.0, seed=seed)
        before = select(build_stack([SINK, top]), q, k, v, scale=1.0).probabilities()[0, :, 0]
        chances = selection.probabilities()[0, :, 0]
        for head in range(2):
            kept = set(before[head].nonzero().flatten().tolist())
            base = sorted(set((chances[head] == 1).nonzero().flatten().tolist()) - kept)
            assert len(base) == 11  # of 110 free keys
            drawn = reference_drawn(q[0, head, 0].double(), k[0, head].double(), v[0, head], kept, base, mode, 0.3, 0.2)
            sampled = chances[head][(chances[head] > 0) & (chances[head] < 1)]
            assert len(sampled) == drawn
            torch.testing.assert_close(sampled, torch.full_like(sampled, drawn / 99))


@pytest.mark.parametrize("heavy", [0.02, pytest.param(0.05, marks=pytest.mark.slow)])
def test_adaptive_sampling_keeps_its_promise(heavy):
    stage = {"name": "adaptive_sampling", "base_rate_sampling": 0.02, "epsilon": 0.05, "delta": 0.05}
    stack = build_stack([{"name": "oracle_top_k", "heavy_size": heavy}, stage])
    missed, densities, heads = [], [], 256
    for seed in range(20):  # 5,120 rows
        q, k, v = gaussian(heads, 4096, seed=seed, dim=8)
        selection = select(stack, q, k, v, scale=1.0, seed=seed)
        true, estimate = sums(q, k, v)[0], sums(q, k, v, selection)[0]
        missed.append((estimate / true - 1).abs() > 0.05)
        densities.append(float(selection.density()))
    assert torch.stack(missed).double().mean() <= 1.5 * 0.05
    assert sum(densities) / len(densities) <= 0.36


@pytest.mark.parametrize("mode", ["denominator", "numerator", "output"])
def test_a_cap_is_never_exceeded(mode):
    stage = {"name": "adaptive_sampling", "epsilon": 0.01, "mode": mode, "max_density": 0.1}
    for keys in (20, 100, 333):
        q, k, v = gaussian(2, keys)
        kept = select(build_stack([SINK, LOCAL, stage]), q, k, v, scale=1.0).counts()
        assert (kept <= max(5, keys // 10)).all()


def test_noise_depends_on_everything_that_makes_a_row_and_on_nothing_else():
    def drawn(**changes):
        q, k, v = gaussian(2, 30)
        return noise(Call(q=q, k=k, v=v, scale=1.0, rows=rows_of(q, k, None), **changes))

    for changes in ({"seed": 1}, {"example": 1}, {"layer": 1}, {"step": 1}):
        assert not torch.equal(drawn(), drawn(**changes))
    assert torch.equal(drawn(), drawn())


@pytest.mark.parametrize(
    ("stage", "text"),
    [
        ({"name": "random_sampling"}, "sampling_rate=None, density=None: exactly one must be set"),
        ({"name": "random_sampling", "sampling_rate": 0}, r"sampling_rate=0: must be a share of the keys in \(0, 1\]"),
        ({"name": "random_sampling", "sampling_rate": 2}, "sampling_rate=2"),
        ({"name": "adaptive_sampling", "epsilon": 0}, r"epsilon=0: must be in \(0, 1\)"),
        ({"name": "adaptive_sampling", "delta": 1}, r"delta=1: must be in \(0, 1\)"),
        ({"name": "adaptive_sampling", "mode": "both"}, "mode=both: must be one of denominator, numerator, output"),
        ({"name": "adaptive_sampling", "base_rate_sampling": -1}, "base_rate_sampling=-1: must be"),
        ({"name": "adaptive_sampling", "max_density": 2}, "max_density=2: must be a share"),
    ],
)
def test_wrong_fields_are_refused(stage, text):
    with pytest.raises(ConfigError, match=text):
        build_stack([stage])


def test_two_samplers_in_a_stack_are_refused():
    with pytest.raises(ConfigError, match="at most one stage of a stack may sample"):
        build_stack([{"name": "random_sampling", "density": 0.1}, {"name": "magic_pig"}])


@pytest.mark.parametrize(
    "stages",
    [
        [SINK, {"name": "random_sampling", "sampling_rate": 0.2}],
        [SINK, LOCAL, {"name": "adaptive_sampling", "epsilon": 0.2, "mode": "output", "max_density": 0.6}],
        [SINK, {"name": "magic_pig", "lsh_l": 10, "lsh_k": 3}],
    ],
    ids=lambda stages: stages[-1]["name"],
)
@pytest.mark.parametrize("mask", ["none", "padding", "by row"])
def test_rows_that_are_taken_apart_draw_the_same(stages, mask, monkeypatch):
    q, k, v = gaussian(4, 50, rows=5, kv_heads=2)
    allowed = {"none": None, "padding": torch.arange(50)[None] >= 7}.get(mask)
    if mask == "by row":
        allowed = (torch.arange(50) % 7 != torch.arange(5)[:, None]).view(1, 1, 5, 50)
    together = select(build_stack(stages), q, k, v, mask=allowed)
    monkeypatch.setattr("sahub.attention.gather._CHUNK_ELEMENTS", 1)
    apart = select(build_stack(stages), q, k, v, mask=allowed)
    torch.testing.assert_close(apart.probabilities(), together.probabilities(), rtol=0, atol=0)
    assert together.counts().unique().numel() > 1
