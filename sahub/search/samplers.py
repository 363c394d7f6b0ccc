"""Samplers of Optuna as the settings describe them, and the points of a grid."""

import math
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sahub.builders.space import Point, Space, rounded, values_of
from sahub.config.settings import Settings
from sahub.errors import ConfigError

MOST_GRID_POINTS = 100_000


def study_of(settings: Settings) -> optuna.Study:
    """An empty study with the sampler: tpe and random minimise the value, nsga2 the value and the density."""
    sampler, search = settings.sampler, settings.search
    if sampler.name == "nsga2":
        population = sampler.population_size or max(2, search.batch)
        return optuna.create_study(
            directions=["minimize", "minimize"],
            sampler=optuna.samplers.NSGAIISampler(population_size=population, seed=search.seed),
        )
    if sampler.name == "random":
        return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=search.seed))
    return optuna.create_study(
        sampler=optuna.samplers.TPESampler(
            seed=search.seed,
            n_startup_trials=search.batch if sampler.n_startup_trials is None else sampler.n_startup_trials,
            multivariate=sampler.multivariate,
            constant_liar=True,
        )
    )


def grid(space: Space, settings: Settings) -> list[Point]:
    """Every combination of all choices and `sampler.points` values per range, in an order that the seed shuffles.

    Raises ConfigError for a grid that nobody can list.
    """
    columns = {leaf: cut(distribution, settings.sampler.points) for leaf, distribution in space.free.items()}
    points = list(islice(space.combinations(columns), MOST_GRID_POINTS + 1))
    if len(points) > MOST_GRID_POINTS:
        raise ConfigError(
            f"sampler.points={settings.sampler.points}: a grid over {len(columns)} fields has more than "
            f"{MOST_GRID_POINTS} points; lower it, pin fields, or use sampler=random"
        )
    Random(settings.search.seed).shuffle(points)
    return points


def cut(distribution: BaseDistribution, count: int) -> Sequence[Any]:
    """All choices; of a range all values where there are at most `count`, else `count`, evenly from end to end."""
    values = values_of(distribution)
    if isinstance(distribution, CategoricalDistribution) or (values is not None and len(values) <= count):
        return values or []
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high = float(distribution.low), float(distribution.high)
    shares = [i / (count - 1) for i in range(count)]
    if distribution.log:
        low, high = math.log(low), math.log(high)
    exact = [low + share * (high - low) for share in shares]
    if distribution.log:
        exact = [math.exp(value) for value in exact]
    if values is None:
        return [distribution.low, *(rounded(value) for value in exact[1:-1]), distribution.high]
    return list(dict.fromkeys(_nearest(values, number) for number in exact))


def _nearest(values: Sequence[Any], number: float) -> Any:
    return min(values, key=lambda value: abs(value - number))
