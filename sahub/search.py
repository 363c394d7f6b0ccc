"""One cell's search: Optuna in generations, every trial ends in a state, a few are promoted to generated answers."""

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import optuna
from optuna.trial import TrialState

from sahub import objectives
from sahub.config import Cell
from sahub.errors import ConfigError, Infeasible, RunError
from sahub.intervals import kendall_tau
from sahub.prepare import Request
from sahub.protocols import Geometry
from sahub.session import Attention
from sahub.space import Point, overrides_of
from sahub.trials import Study, Trial, attention_of, check_limits, judge, limits_of, plan_of, space_of_cell
from sahub.workers import Batch, Work

log = logging.getLogger(__name__)
optuna.logging.set_verbosity(optuna.logging.WARNING)

# How often a sampler may repeat itself or hit a limit before a generation is closed short.
MOST_MISSES = 25


class Search:
    """The search of one cell on prepared requests."""

    def __init__(
        self,
        cell: Cell,
        geometry: Geometry,
        requests: Sequence[Request],
        on_trial: Callable[[], None] = lambda: None,
    ) -> None:
        self.cell, self.geometry, self.requests, self.on_trial = cell, geometry, requests, on_trial
        self.settings, self.objective = cell.settings.search, cell.settings.objective
        self.space = space_of_cell(cell)
        self.trials: list[Trial] = []
        self._built: dict[tuple[str, ...], Attention] = {}
        self.num_keys = min(len(request.context_ids) for request in requests)
        needed = objectives.needs(self.objective)
        self.fidelity = "generate" if needed == "generate" else self.settings.fidelity
        # A wrong field is an error, not a rejected point; so is a protocol that this model cannot follow.
        self._attention(overrides_of(self.space.default)).check(geometry)

    def work(self) -> Work[Study]:
        """Search, promote, decide: asks for batches. Raises RunError or ConfigError where no trial could run."""
        begin = time.monotonic()
        end = begin + (self.settings.time_budget_s or math.inf)
        [default] = yield from self._trials([self.space.default], self.fidelity)
        for points in self._generations(end):
            points.tell((yield from self._trials(points.points, self.fidelity)))
        if not any(trial.state == "complete" for trial in self.trials):
            raise self._nothing()
        primary = sorted((t for t in self.trials if t.state == "complete"), key=lambda trial: trial.rank)
        best = next((trial for trial in primary if trial.feasible), None)
        study = Study(trials=(), best=best, default=default, seconds=0.0)
        if self.fidelity == "teacher":
            study = yield from self._promote(primary, study)
        return replace(study, trials=tuple(self.trials), seconds=time.monotonic() - begin)

    def _generations(self, end: float) -> Iterator["Generation"]:
        """Batches of new points until num_samples are asked, the space is exhausted, or the time is over."""
        seen = {overrides_of(self.space.default)}
        everything = self.space.points()
        if not self.space.free:
            return
        if everything is not None and len(everything) <= self.settings.num_samples:
            left = [point for point in everything if overrides_of(point) not in seen]
            for start in range(0, len(left), self.settings.batch):
                if time.monotonic() > end:
                    return
                yield Generation(left[start : start + self.settings.batch])
            return
        study = self._study()
        ran = 1
        while ran < self.settings.num_samples and time.monotonic() < end:
            generation = self._ask(study, seen, min(self.settings.batch, self.settings.num_samples - ran))
            if not generation.points:
                return
            ran += len(generation.points)
            yield generation

    def _study(self) -> optuna.Study:
        """A seeded sampler that knows the default's value where the default lies in the space."""
        study = optuna.create_study(
            sampler=optuna.samplers.TPESampler(
                seed=self.settings.seed, n_startup_trials=self.settings.batch, constant_liar=True
            )
        )
        default, point = self.trials[0], self.space.default
        inside = all(_contains(distribution, point[leaf]) for leaf, distribution in self.space.free.items())
        if default.value is not None and inside:
            study.add_trial(optuna.trial.create_trial(params=point, distributions=self.space.free, value=default.value))
        return study

    def _ask(self, study: optuna.Study, seen: set[tuple[str, ...]], count: int) -> "Generation":
        """`count` new points; repeated ones are asked again, rejected ones recorded and asked again, both boundedly."""
        generation = Generation([], study, [])
        misses = 0
        while len(generation.points) < count and misses < MOST_MISSES * count:
            trial = study.ask(self.space.free)
            overrides = overrides_of(trial.params)
            if overrides in seen:
                study.tell(trial, state=TrialState.FAIL)
                misses += 1
                continue
            seen.add(overrides)
            rejected = self._rejection(overrides)
            if rejected:
                study.tell(trial, state=TrialState.PRUNED)
                self._record(rejected)
                misses += 1
                continue
            generation.points.append(dict(trial.params))
            generation.asked.append(trial)
        return generation

    def _attention(self, overrides: tuple[str, ...]) -> Attention:
        """The point's stack, composed once: that costs as much as measuring a few answers."""
        if overrides not in self._built:
            self._built[overrides] = attention_of(self.cell, overrides)
        return self._built[overrides]

    def _rejection(self, overrides: tuple[str, ...]) -> Trial | None:
        try:
            stack = self._attention(overrides).stack
            assert stack is not None
            check_limits(stack, limits_of(self.cell), self.geometry, self.num_keys)
        except (Infeasible, ConfigError) as error:
            if not self.space.free:
                raise
            return Trial(state="rejected", fidelity=self.fidelity, overrides=overrides, reason=str(error))
        return None

    def _trials(self, points: Sequence[Point], fidelity: str) -> Work[list[Trial]]:
        """Evaluate points (those within the limits) and record them, in the order given."""
        waiting: list[tuple[tuple[str, ...], Trial | None]] = []
        for point in points:
            overrides = overrides_of(point)
            waiting.append((overrides, self._rejection(overrides)))
        allowed = [overrides for overrides, rejected in waiting if rejected is None]
        attentions = [self._attention(overrides) for overrides in allowed]
        done = iter((yield self._batch(attentions, fidelity)))
        return [
            self._record(rejected or judge(self.cell, overrides, next(done), fidelity))
            for overrides, rejected in waiting
        ]

    def _batch(self, attentions: Sequence[Attention], fidelity: str) -> Batch:
        plan = plan_of(self.cell, self.settings, generate=fidelity == "generate")
        return Batch(
            requests=self.requests, attentions=attentions, plan=plan, max_concurrent=self.settings.max_concurrent
        )

    def _record(self, trial: Trial) -> Trial:
        numbered = replace(trial, number=len(self.trials))
        self.trials.append(numbered)
        self.on_trial()
        if trial.state == "failed":
            log.warning("trial=%d failed: %s", numbered.number, trial.reason)
        return numbered

    def _promote(self, ranked: list[Trial], study: Study) -> Work[Study]:
        """Generate answers with the best few, the default and some over the whole ranking.

        The two rankings are compared, and the winner is the best ranked of the feasible few whose answers score no
        worse than the default's: low KL can mean "wrong, but not confidently".
        """
        top = [trial for trial in ranked if trial.feasible][: self.settings.promote]
        spread = self.settings.calibrate
        some = [ranked[round(i * (len(ranked) - 1) / max(1, spread - 1))] for i in range(spread)]
        default = study.default
        first = [default] if default.state == "complete" and (top or some) else []
        chosen = list({trial.overrides: trial for trial in [*top, *first, *some]}.values())
        outcomes = yield self._batch([self._attention(trial.overrides) for trial in chosen], "generate")
        dear = {
            trial.overrides: self._record(judge(self.cell, trial.overrides, outcome, "generate"))
            for trial, outcome in zip(chosen, outcomes, strict=True)
        }
        scores = {key: trial.measures["benchmark_score"] for key, trial in dear.items() if trial.state == "complete"}
        pairs = [(trial, scores[trial.overrides]) for trial in chosen if trial.overrides in scores]
        if not pairs or study.best is None:
            return study
        floor = scores.get(default.overrides, 0.0)
        unharmed = [t for t, score in pairs if t.feasible and score >= floor]
        best = min(unharmed, key=lambda trial: trial.rank) if top and unharmed else study.best
        won = scores.get(best.overrides)
        return replace(
            study,
            best=best,
            generated=dear.get(best.overrides),
            tau=kendall_tau([-trial.rank[0] for trial, _ in pairs], [score for _, score in pairs]),
            regret=None if won is None else max(scores.values()) - won,
        )

    def _nothing(self) -> RunError | ConfigError:
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if failed:
            return RunError(
                f"{self.cell.name}: none of {len(self.trials)} trials completed, {len(failed)} failed; the first: "
                f"{failed[0].reason}"
            )
        reasons = [trial.reason for trial in self.trials]
        return ConfigError(
            f"{self.cell.name}: no point of the space is within its limits ({len(reasons)} tried); most often: "
            f"{max(set(reasons), key=reasons.count)}"
        )


@dataclass
class Generation:
    """Points asked together; told together, in the order asked, so that results do not depend on who finished first."""

    points: list[Point]
    study: optuna.Study | None = None
    asked: list[optuna.Trial] = field(default_factory=list)

    def tell(self, trials: Sequence[Trial]) -> None:
        """Hand the values to the sampler; a failed trial has none."""
        for asked, trial in zip(self.asked, trials, strict=True) if self.study else ():
            assert self.study is not None
            if trial.value is None:
                self.study.tell(asked, state=TrialState.FAIL)
            else:
                self.study.tell(asked, trial.value)


def _contains(distribution: optuna.distributions.BaseDistribution, value: object) -> bool:
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))
    except (ValueError, TypeError):
        return False
