"""Every builder can meet every target that there is an objective for, at short and at long contexts."""

import copy
import functools
import math
from pathlib import Path
from random import Random

import pytest
import torch
from hash_files import hash_fields
from omegaconf import OmegaConf
from optuna.distributions import CategoricalDistribution, IntDistribution

from sahub.attention.budgets import row_tokens, share_of
from sahub.attention.rows import Rows
from sahub.builders.build import build_stack, select
from sahub.builders.space import extremes, rounded, space_of
from sahub.config.builder_tree import grid_at

TARGETS = [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5]
LENGTHS = [1024, *(pytest.param(length, marks=pytest.mark.slow) for length in (4096, 32768))]
NO_INDEX = ("dense", "sink", "local", "streaming_llm")
BUILDERS = sorted(path.stem for path in Path("conf/builder").glob("*.yaml") if path.stem != "compose")
WITH_INDEX = [name for name in BUILDERS if name not in NO_INDEX]
HASHES = hash_fields(heads=1, head_dim=16)


def builder(name, target):
    """A builder's tree at a target, as an objective of that density resolves it."""
    objective = {"budget": target, "budget_max": target, "budget_search": {}, "density": target}
    tree = OmegaConf.to_container(
        OmegaConf.merge(OmegaConf.load(f"conf/builder/{name}.yaml"), {"objective": objective}), resolve=True
    )
    tree["stages"].get("hash_attention", {}).update(HASHES)  # has no weights of its own
    return tree


def points(tree):
    """The builder's own stages, then those with one free field at an end of its range."""
    yield tree["stages"]
    space = space_of(tree)
    for leaf, distribution in space.free.items():
        for value in extremes(distribution):
            yield at(tree, space.reaching(leaf, value))


def grid_points(tree, target):
    """Every point of the builder's grid; its own stages where it has none."""
    for point in space_of({**tree, "search": grid_at(tree.get("grid", {}), target)}).points():
        yield at(tree, point)


def at(tree, point):
    """The builder's stages at a point."""
    stages = copy.deepcopy(tree["stages"])
    for leaf, value in point.items():
        *above, name = leaf.split(".")
        functools.reduce(dict.__getitem__, above, stages)[name] = rounded(value)
    return stages


def test_every_target_has_an_objective():
    found = {OmegaConf.load(path).get("density") for path in Path("conf/objective").glob("sparsity_*.yaml")}
    assert found == set(TARGETS)


def drawn(space, chance):
    """A point of the space by chance alone."""
    point = {}
    for leaf, range_ in space.free.items():
        if not space.applies(leaf, point):
            continue
        if isinstance(range_, CategoricalDistribution):
            point[leaf] = chance.choice(range_.choices)
        elif range_.log:
            value = math.exp(chance.uniform(math.log(range_.low), math.log(range_.high)))
            point[leaf] = type(range_.low)(value)
        elif isinstance(range_, IntDistribution):
            point[leaf] = chance.randrange(range_.low, range_.high + 1, range_.step)
        else:
            point[leaf] = chance.uniform(range_.low, range_.high)
    return point


def lives(tree, space, target, length):
    """The share of the budget that is left for the index at points by chance, one by one."""
    chance, rows = Random(f"{target} {length}"), Rows(1, 1, length, torch.device("cpu"))
    whole = share_of(target, length)
    for _ in range(40):
        stages = at(tree, drawn(space, chance))
        kept = torch.zeros(1, 1, 1, dtype=torch.int64)
        for size in (stages["sink"]["sink_size"], stages["local"]["window_size"]):
            kept = kept + row_tokens(size, rows, target, kept)
        heavy = next(fields for label, fields in stages.items() if label not in ("sink", "local")).get("heavy_size")
        yield int(row_tokens(heavy, rows, target, kept) if heavy else whole - kept) / whole


@pytest.mark.parametrize("length", [1024, 4096])
@pytest.mark.parametrize("target", [0.02, 0.05, 0.1, 0.2, 0.5])
def test_points_leave_the_index_its_part(target, length):
    """Of all points that are drawn, at most one in twenty gives what is not sink and window less than a tenth."""
    for name in WITH_INDEX:
        tree = builder(name, target)
        space = space_of(tree, budget_tokens=share_of(target, length))
        shares = list(lives(tree, space, target, length))
        assert sum(share >= 0.1 for share in shares) >= 0.95 * len(shares), (name, shares)


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", [name for name in BUILDERS if name not in ("dense", "magic_pig", "oracle_topp")])
def test_points_are_feasible(name, length):
    """Points by chance keep within the target, and what fills a budget is less than a key below it."""
    chance = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, 16, generator=chance) for heads, n in ((2, 1), (1, length), (1, length)))
    random = Random(name)
    for target in (0.02, 0.05, 0.1, 0.2, 0.5):
        tree = builder(name, target)
        space = space_of(tree, budget_tokens=share_of(target, length))
        for point in (space.default, drawn(space, random)):
            stack = build_stack(at(tree, point), density=target)
            found = float(select(stack, q, k, v).check().density())
            assert found <= target + 1e-9, point
            if any(getattr(stage, "density", None) for stage in stack.stages):
                assert found > target - 1 / length, point


@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("name", [name for name in BUILDERS if name != "dense"])
@pytest.mark.parametrize("space", ["continuous", "grid"])
def test_every_target_has_a_valid_point(name, length, space):
    chance = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, 16, generator=chance) for heads, n in ((2, 1), (1, length), (1, length)))
    built = {}
    for target in TARGETS:
        tried = []
        tree = builder(name, target)
        for stages in points(tree) if space == "continuous" else grid_points(tree, target):
            stack = build_stack(stages, density=target)
            if stack.index_keys() not in built:
                state = stack.new_state(layer=0)
                state.append(k[:, :, :-1], v[:, :, :-1])
                state.freeze()
                state.append(k[:, :, -1:], v[:, :, -1:])
                built[stack.index_keys()] = state.indexes
            state = stack.new_state(layer=0, indexes=built[stack.index_keys()], length=length)
            tried.append(float(state.select(q, k, v).check().density()))
            if tried[-1] <= target + 1e-9:
                break
        else:
            pytest.fail(f"at {target:.0%} of {length} keys the smallest density is {min(tried):.3f}")
