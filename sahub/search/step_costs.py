"""How long a step of a cell's stacks takes on this machine, from steps that are measured once and kept."""

import logging
from collections.abc import Mapping
from typing import Any

import torch

from sahub.attention.call import Geometry
from sahub.attention.stack import Stack
from sahub.builders.space import extremes, overrides_of
from sahub.config.cell import Cell
from sahub.engine.model import device_of
from sahub.engine.requests import load
from sahub.errors import ConfigError, Infeasible
from sahub.files.journal import Journal, numbers_version
from sahub.models.weights import digest_of_model
from sahub.search.limits import check_limits, limits_of
from sahub.search.trial import attention_of, space_of_cell
from sahub.timing.costs import FEATURES, Step, StepCosts, fitted, step_of
from sahub.timing.machine import machine
from sahub.timing.measure import measured

log = logging.getLogger(__name__)
SHORTEST = 64  # tokens
ROUNDS = 5
STEPS = [{"length": float, "features": [float], "seconds": float}]
SHAPE = {"machine": dict, "sparse": STEPS, "dense": STEPS}


def step_costs(cell: Cell, geometry: Geometry, longest: int) -> StepCosts:
    """The models of steps of a cell's stacks over up to `longest` keys; the steps are measured where none are kept.

    They are those of the builder's default, and of its free fields each at its last value, over a quarter, a half and
    all of the keys, rounded up to a power of two: contexts of about one length share their steps.
    """
    stacks, most = stacks_of(cell, geometry, longest), 1 << (longest - 1).bit_length()
    lengths = sorted({max(SHORTEST, most // part) for part in (4, 2, 1)})
    journal, key = Journal(cell.settings.cache_dir, force=cell.settings.force), _key(cell, stacks, lengths)
    kept = journal.get(key, SHAPE)
    if kept is None:
        log.info("cell=%s: measuring steps of %d stacks over %s keys", cell.name, len(stacks), lengths)
        kept = measured_steps(cell, stacks, lengths)
        journal.put(key, kept)
    sparse, dense = (fitted([_read(step) for step in kept[side]]) for side in ("sparse", "dense"))
    costs = StepCosts(sparse=sparse, dense=dense, machine=kept["machine"])
    log.info("cell=%s: predicted seconds of a step: %s", cell.name, costs.sparse.about)
    return costs


def _read(step: Mapping[str, Any]) -> Step:
    return Step(length=step["length"], features=tuple(step["features"]), seconds=step["seconds"])


def stacks_of(cell: Cell, geometry: Geometry, longest: int) -> dict[str, Stack]:
    """The stacks that are measured, by their overrides."""
    space = space_of_cell(cell)
    points = [space.default, *(space.reaching(leaf, extremes(free)[-1]) for leaf, free in space.free.items())]
    found: dict[str, Stack] = {}
    for overrides in map(overrides_of, points):
        try:
            stack = attention_of(cell, overrides).stack
            assert stack is not None
            check_limits(stack, limits_of(cell), geometry, longest)
        except (ConfigError, Infeasible):
            continue  # a search does not try it either
        found[" ".join(overrides)] = stack
    if not found:
        raise ConfigError(
            f"builder={cell.choices.builder}: none of {len(points)} stacks is within its limits to be timed"
        )
    return found


def _key(cell: Cell, stacks: Mapping[str, Stack], lengths: list[int]) -> dict[str, Any]:
    """What the seconds depend on."""
    settings = cell.settings
    here = machine(torch.device(device_of(settings.model.device)))
    here |= {"threads": settings.compute.threads}  # which are set when the model is loaded
    return {
        "kind": "seconds of steps",
        "features": FEATURES,
        "machine": {name: fact for name, fact in here.items() if name != "date"},
        "numbers": numbers_version(),
        "model": digest_of_model(settings.model.path, settings.model.revision, settings.cache_dir),
        "dtype": settings.model.dtype,
        "dense_layers": settings.protocol.dense_layers,
        "stacks": {name: repr(stack) for name, stack in stacks.items()},
        "lengths": lengths,
    }


def measured_steps(cell: Cell, stacks: Mapping[str, Stack], lengths: list[int]) -> dict[str, Any]:
    """Steps of the stacks, with the machine that took them."""
    model = load(cell)
    taken = measured(
        model,
        lengths,
        stacks,
        rounds=ROUNDS,
        dense_layers=cell.settings.protocol.dense_layers,
        seed=cell.settings.search.seed,
    )
    steps: dict[str, list[dict[str, Any]]] = {"sparse": [], "dense": []}
    for one in taken:
        stack = stacks.get(one.name)
        shares = {"density": one.density, "kv_density": one.kv_density}
        step = step_of(stack, model.geometry, one.length, **shares, seconds=one.step)
        steps["sparse" if stack else "dense"].append(vars(step))
    return {"machine": machine(model.device), **steps}
