"""Every combination of a few values of each field."""

import math
from collections.abc import Sequence
from itertools import islice
from random import Random
from typing import Any

from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sahub.builders.space import Point, Space, rounded, values_of
from sahub.config.settings import Settings
from sahub.errors import ConfigError

MOST_GRID_POINTS = 100_000


def points(space: Space, settings: Settings) -> list[Point]:
    """Every combination of all choices and `sampler.points` values per range, in an order that the seed shuffles.

    Raises ConfigError for a grid that nobody can list.
    """
    columns = {leaf: cut(distribution, settings.sampler.points) for leaf, distribution in space.free.items()}
    found = list(islice(space.combinations(columns), MOST_GRID_POINTS + 1))
    if len(found) > MOST_GRID_POINTS:
        raise ConfigError(
            f"sampler.points={settings.sampler.points}: a grid over {len(columns)} fields has more than "
            f"{MOST_GRID_POINTS} points; lower it, pin fields, or use sampler=random"
        )
    Random(settings.search.seed).shuffle(found)
    return found


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
