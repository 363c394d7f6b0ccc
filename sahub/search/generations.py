"""Which points a search tries: asked generation by generation, none twice, none beyond the limits."""

import logging
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from sahub.builders.space import Point, Space, overrides_of
from sahub.config.group_schemas import Objective
from sahub.config.settings import Settings
from sahub.extensions import member
from sahub.search.frontier import costs, crossings
from sahub.search.trial import Trial

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

# How often a sampler may repeat itself or hit a limit before a generation is closed short.
MOST_MISSES = 25


@dataclass
class Generation:
    """Points asked together; told together, in the order asked, so that results do not depend on who finished first."""

    objective: Objective
    points: list[Point] = field(default_factory=list)
    study: optuna.Study | None = None
    asked: list[optuna.Trial] = field(default_factory=list)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Hand values and what exceeds the targets to the sampler; a failed or pruned trial has no value."""
        if self.study is None:
            return
        for asked, trial in zip(self.asked, trials, strict=True):
            for name, excess in trial.excess.items():
                asked.set_constraint(name, excess)
            if trial.state == "pruned":
                for contexts, value in trial.rungs.items() if len(self.study.directions) == 1 else ():
                    asked.report(value, contexts)
                self.study.tell(asked, state=TrialState.PRUNED)
            elif trial.value is None:
                self.study.tell(asked, state=TrialState.FAIL)
            else:
                self.study.tell(asked, _values(self.study, trial, self.objective))


def generations(
    space: Space, settings: Settings, trials: Sequence[Trial], is_rejected: Callable[[Point], bool]
) -> Iterator[Generation]:
    """Batches of new points after the default, the first of `trials`, until num_samples are asked or none are left.

    `trials` grows with what came of the points; the last third of a frontier begins with `crossings`.
    A generation must be told before the next one is asked for. `is_rejected` says of a new point whether it is beyond
    the limits; such a point is not asked for again.
    """
    if not space.free:
        return
    everything, most = space.points(settings.search.num_samples), settings.search.num_samples
    if everything is None:
        source = _source(space, settings, trials[0])
    else:  # each once, whatever the sampler, and the default where it is none of them
        source, most = _Listed(iter(everything)), len(everything) + 1
    seen, ran = {overrides_of(space.default)}, 1
    while ran < most:
        generation, count = Generation(settings.objective, study=source.study), min(settings.search.batch, most - ran)
        if 3 * ran >= 2 * most and isinstance(source, _Sampled):
            source.begin_with(crossings(settings.objective, space, trials), seen, count)
        _ask(generation, source, seen, is_rejected, count)
        if not generation.points:
            return
        ran += len(generation.points)
        yield generation


def at_random(space: Space, settings: Settings, num: int) -> list[Point]:
    """Points that are drawn each by itself, by the seed of the search."""
    source = _Sampled(space, member("search/samplers", "random").study(settings, 1))
    drawn = [source.draw() for _ in range(num)]
    return [point for point, _ in drawn]


@dataclass
class _Listed:
    """Points known beforehand."""

    points: Iterator[Point]
    study: None = None

    def draw(self) -> tuple[Point, None] | None:
        point = next(self.points, None)
        return None if point is None else (point, None)


@dataclass
class _Sampled:
    """Points that a sampler proposes from what it was told."""

    space: Space
    study: optuna.Study

    def begin_with(self, points: Sequence[Point], seen: Collection[tuple[str, ...]], count: int) -> None:
        """Draw the first `count` of these points next, those that lie in the space and were not seen."""
        new = [point for point in points if overrides_of(point) not in seen and _lies_in(self.space, point)]
        for point in new[:count]:
            self.study.enqueue_trial(point, skip_if_exists=True)

    def draw(self) -> tuple[Point, optuna.Trial]:
        trial, point = self.study.ask(), Point()
        for leaf, distribution in self.space.free.items():
            if self.space.applies(leaf, point):
                point[leaf] = _suggested(trial, leaf, distribution)
        return point, trial


def _source(space: Space, settings: Settings, default: Trial) -> _Listed | _Sampled:
    """The points of a sampler that lists them, or one that knows the default where that lies in the space."""
    name = settings.sampler.name
    sampler = member("search/samplers", name)
    if hasattr(sampler, "points"):
        points, most = sampler.points(space, settings), settings.search.num_samples
        if len(points) > most:
            log.warning("sampler=%s: %d points in an order of the seed, of which %d are tried", name, len(points), most)
        return _Listed(iter(points))
    study, point = sampler.study(settings, 1 + len(costs(settings.objective, default))), space.default
    if default.value is not None and _lies_in(space, point):
        told = optuna.trial.create_trial(
            params=point,
            distributions={leaf: space.free[leaf] for leaf in point},
            values=_values(study, default, settings.objective),
        )
        for name, excess in default.excess.items():
            told.set_constraint(name, excess)
        study.add_trial(told)
    return _Sampled(space, study)


def _ask(
    generation: Generation,
    source: _Listed | _Sampled,
    seen: set[tuple[str, ...]],
    is_rejected: Callable[[Point], bool],
    count: int,
) -> None:
    """`count` new points; repeated and rejected ones are asked again, boundedly where the source is endless."""
    misses = 0
    while len(generation.points) < count and misses < MOST_MISSES * count:
        drawn = source.draw()
        if drawn is None:
            break
        point, trial = drawn
        overrides = overrides_of(point)
        is_new = overrides not in seen
        seen.add(overrides)
        if is_new and not is_rejected(point):
            generation.points.append(point)
            generation.asked += [trial] if trial else []
        elif trial and source.study:
            misses += 1
            if is_new:
                trial.set_constraint("limits", 1.0)
            source.study.tell(trial, state=TrialState.PRUNED if is_new else TrialState.FAIL)


def _values(study: optuna.Study, trial: Trial, objective: Objective) -> list[float]:
    """What is minimised: the value, and beside it what a frontier spans, or for a sampler of two goals the keys."""
    assert trial.value is not None
    return [trial.value, *(costs(objective, trial) or [trial.spent])][: len(study.directions)]


def _suggested(trial: optuna.Trial, leaf: str, distribution: BaseDistribution) -> object:
    if isinstance(distribution, CategoricalDistribution):
        return trial.suggest_categorical(leaf, distribution.choices)
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    low, high, log_scale = distribution.low, distribution.high, distribution.log
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(leaf, int(low), int(high), step=distribution.step, log=log_scale)
    return trial.suggest_float(leaf, low, high, step=distribution.step, log=log_scale)


def _lies_in(space: Space, point: Point) -> bool:
    return all(_contains(space.free[leaf], value) for leaf, value in point.items())


def _contains(distribution: BaseDistribution, value: object) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
