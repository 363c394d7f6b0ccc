"""Every builder can meet every target that there is an objective for, at short and at long contexts."""

from pathlib import Path

import pytest
import torch
from hash_files import hash_fields
from omegaconf import OmegaConf

from sahub.builders.build import build_stack
from sahub.builders.space import extremes, overrides_of, space_of
from sahub.config.builder_tree import grid_at

TARGETS = [0.02, 0.05, 0.1, 0.15, 0.2, 0.25, 0.5]
LENGTHS = [1024, 4096, pytest.param(32768, marks=pytest.mark.slow)]
BUILDERS = sorted(path.stem for path in Path("conf/builder").glob("*.yaml") if path.stem != "compose")
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
    changes = OmegaConf.from_dotlist([one.removeprefix("builder.") for one in overrides_of(point)])
    return OmegaConf.to_container(OmegaConf.merge({"stages": tree["stages"]}, changes))["stages"]


def test_every_target_has_an_objective():
    found = {OmegaConf.load(path).get("density") for path in Path("conf/objective").glob("sparsity_*.yaml")}
    assert found == set(TARGETS)


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
            if tried[-1] <= target + stack.granule / length + 1e-9:
                break
        else:
            pytest.fail(f"at {target:.0%} of {length} keys the smallest density is {min(tried):.3f}")
