"""One cell's search: Optuna in generations, every trial ends in a state, a few are promoted to generated answers."""

import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

from sahub.attention.call import Geometry
from sahub.builders.space import Point, overrides_of
from sahub.compute.worker import Work
from sahub.engine.session import Attention
from sahub.errors import ConfigError, Infeasible, RunError
from sahub.fidelities import dearest, is_last
from sahub.search import racing, schedulers
from sahub.search.decision import check_rows, deciding, promoting, why_default
from sahub.search.frontier import costs, has_frontier, winners
from sahub.search.generations import generations
from sahub.search.limits import check_limits, limits_of, own_limit
from sahub.search.objective import fidelity_of, reads_errors
from sahub.search.rounds import Overrides, measured, no_losers
from sahub.search.scope import Part
from sahub.search.trial import Budgeted, Decision, Study, Trial, attention_of, by_rank, space_of_cell
from sahub.stats.intervals import kendall_tau

log = logging.getLogger(__name__)
DENSE: Overrides = ("dense",)  # stands for no overrides of any builder: what the promoted are measured beside


class Search:
    """The search of one cell, or of cells that differ in their task alone: then on the mean over their tasks."""

    def __init__(self, parts: Sequence[Part], geometry: Geometry, on_trial: Callable[[], None] = lambda: None) -> None:
        self.parts, self.geometry, self.on_trial = parts, geometry, on_trial
        self.cell = cell = parts[0].cell
        self.settings, self.objective = cell.settings.search, cell.settings.objective
        self.space = space_of_cell(cell)
        self._own_limit = own_limit(cell)
        self.trials: list[Trial] = []
        self.end = math.inf  # of `time.monotonic()`
        self._built: dict[Overrides, Attention] = {}
        self.num_keys = min(len(request.context_ids) for part in self.parts for request in part.requests)
        self.fidelity = fidelity_of(cell.settings)
        contexts = min(len(part.requests) for part in self.parts)
        # A loss is within its bound on all contexts together, or it is not: nobody ends early.
        self.rungs = [] if self.objective.loss else schedulers.rungs(cell.settings.scheduler, contexts)
        if cell.settings.scheduler.name in ("median", "asha") and not self.rungs:
            log.warning(
                "%s: scheduler.first=%d prunes nothing: the search has %d contexts",
                cell.name, cell.settings.scheduler.first, contexts,
            )  # fmt: skip
        check_rows(parts if self.space.free else ())
        # A wrong field is an error, not a rejected point; so is a protocol that this model cannot follow.
        self._attention(overrides_of(self.space.default)).check(geometry)

    def work(self) -> Work[Study]:
        """Search, promote, decide: asks for batches. Raises RunError or ConfigError where no trial could run."""
        begin = time.monotonic()
        self.end = begin + (self.settings.time_budget_s or math.inf)
        [default] = yield from self._trials([self.space.default])
        asked = generations(self.space, self.cell.settings, self.trials, self._is_rejected)
        while time.monotonic() < self.end and (generation := next(asked, None)) is not None:
            generation.tell((yield from self._trials(generation.points, self.end)))
        if not any(trial.state == "complete" for trial in self.trials):
            raise self._nothing()
        best = next((trial for trial in by_rank(self.trials) if trial.feasible), None)
        study = Study(trials=(), best=best, default=default, seconds=0.0)
        if has_frontier(self.objective):
            study = yield from self._check(study)
        elif not is_last(self.fidelity):
            study = yield from self._promote(study)
        study = yield from self._decide(study)
        return replace(study, trials=tuple(self.trials), seconds=time.monotonic() - begin)

    def _attention(self, overrides: Overrides) -> Attention:
        """The point's stack, composed once: that costs as much as measuring a few answers.

        Dense outputs beside the sparse ones cost a tenth of a trial: no search makes them that does not read them.
        """
        if overrides not in self._built:
            made = attention_of(self.cell, overrides)
            self._built[overrides] = made if reads_errors(self.objective) else replace(made, measure=0)
        return self._built[overrides]

    def _rejection(self, overrides: Overrides) -> Trial | None:
        try:
            stack = self._attention(overrides).stack
            assert stack is not None
            check_limits(stack, limits_of(self.cell), self.geometry, self.num_keys)
            self._own_limit(stack, self.geometry, self.num_keys)
        except (Infeasible, ConfigError) as error:
            if not self.space.free:
                raise
            excess = {"limits": error.excess} if isinstance(error, Infeasible) else {}
            return Trial(
                state="rejected", fidelity=self.fidelity, overrides=overrides, reason=str(error), excess=excess
            )
        return None

    def _is_rejected(self, point: Point) -> bool:
        """Whether a point is beyond the limits; then that is recorded."""
        rejected = self._rejection(overrides_of(point))
        if rejected:
            self._record(rejected, point)
        return rejected is not None

    def _trials(self, points: Sequence[Point], end: float | None = None) -> Work[list[Trial]]:
        """Evaluate points (those within the limits) and record them, in the order given.

        With an `end`, the scheduler and the end of the search's time may prune them.
        """
        found = {overrides: self._rejection(overrides) for overrides in map(overrides_of, points)}
        stacks = {one: self._attention(one) for one, rejected in found.items() if rejected is None}
        losers = no_losers if end is None else self._losers
        done = yield from measured(self.parts, stacks, self.fidelity, self.rungs, losers, until=end or math.inf)
        return [
            self._record(found[one] or done[one], point)
            for one, point in ((overrides_of(point), point) for point in points)
        ]

    def _losers(self, running: Mapping[Overrides, Trial], contexts: int) -> Mapping[Overrides, str]:
        """Who of a generation ends after as many contexts, among all who came as far."""
        if self.cell.settings.scheduler.name == "race":
            complete = [trial for trial in self.trials if trial.state == "complete"]
            return racing.losers(complete, running, contexts, partial(costs, self.objective))
        earlier = [trial.rungs[contexts] for trial in self.trials if contexts in trial.rungs]
        values = {one: trial.rungs[contexts] for one, trial in running.items()}
        return schedulers.losers(self.cell.settings.scheduler, earlier, values, contexts)

    def _record(self, trial: Trial, point: Mapping[str, Any]) -> Trial:
        numbered = replace(trial, number=len(self.trials), point=point)
        self.trials.append(numbered)
        self.on_trial()
        if trial.state == "failed":
            log.warning("trial=%d failed: %s", numbered.number, trial.reason)
        return numbered

    def _promote(self, study: Study) -> Work[Study]:
        """Generate answers with the best few, the default and some over the whole ranking.

        The two rankings are compared, and the winner is the best ranked of the feasible few whose answers score no
        worse than the default's: low KL can mean "wrong, but not confidently". So where dense answers score something
        and all of these nothing, the default stays.
        """
        ranked = by_rank(self.trials)
        top = [trial for trial in ranked if trial.feasible][: self.settings.promote]
        spread = self.settings.calibrate
        some = [ranked[round(i * (len(ranked) - 1) / max(1, spread - 1))] for i in range(spread)]
        default = study.default
        first = [default] if default.state == "complete" and (top or some) else []
        chosen = list({trial.overrides: trial for trial in [*top, *first, *some]}.values())
        stacks = {trial.overrides: self._attention(trial.overrides) for trial in chosen}
        beside = {DENSE: Attention()} if stacks else {}
        parts = promoting(self.parts)
        done = yield from measured(parts, {**stacks, **beside}, "generate", until=self.end)
        dear = {trial.overrides: self._record(done[trial.overrides], trial.point) for trial in chosen}
        ended = [trial for trial in dear.values() if trial.state == "complete"]
        graded = [trial for trial in ended if "benchmark_score" in trial.measures]  # none without gold answers
        scores = {trial.overrides: trial.measures["benchmark_score"] for trial in graded}
        pairs = [(trial, scores[trial.overrides]) for trial in chosen if trial.overrides in scores]
        if not pairs or study.best is None:
            return study
        floor = scores.get(default.overrides, 0.0)
        unharmed = [t for t, score in pairs if t.feasible and score >= floor]
        best = min(unharmed, key=lambda trial: trial.rank) if top and unharmed else study.best
        if top and default.feasible and done[DENSE].measures.get("benchmark_score") and not any(scores.values()):
            best = default
        won = scores.get(best.overrides)
        return replace(
            study,
            best=best,
            generated=dear.get(best.overrides),
            tau=kendall_tau([-trial.last for trial, _ in pairs], [score for _, score in pairs]),
            regret=None if won is None else max(scores.values()) - won,
        )

    def _check(self, study: Study) -> Work[Study]:
        """Force answers with the winner for each budget, on contexts that chose none.

        That of `objective.budget` is the cell's own.
        """
        best = winners(self.objective, self.trials)
        stacks = {trial.overrides: self._attention(trial.overrides) for trial in best.values()}
        parts = deciding(self.parts) or self.parts
        done = yield from measured(parts, stacks, dearest("teacher", self.fidelity), until=self.end)
        found = {name: Budgeted(trial=trial, checked=done[trial.overrides]) for name, trial in best.items()}
        own = best.get(f"density_{self.objective.budget:g}") or study.best
        return replace(study, best=None if own is None else self.trials[own.number], frontier=found)

    def _decide(self, study: Study) -> Work[Study]:
        """Hold the winner against the default on contexts that chose neither; the default stays where it loses."""
        best, default, parts = study.best, study.default, deciding(self.parts)
        if best is None or best.overrides == default.overrides or not default.feasible or not parts:
            return study
        stacks = {trial.overrides: self._attention(trial.overrides) for trial in (best, default)}
        done = yield from measured(parts, stacks, "generate", until=self.end)
        won, stayed = (replace(done[trial.overrides], point=trial.point) for trial in (best, default))
        why = why_default(won, stayed)
        decision = Decision(winner=won, default=stayed, stays=why)
        if not why:
            return replace(study, decision=decision)
        log.info("%s: the default stays: %s", self.cell.name, why)
        dear = [trial for trial in self.trials if trial.fidelity == "generate" != self.fidelity]
        generated = next((trial for trial in dear if trial.overrides == default.overrides), None)
        return replace(study, best=default, generated=generated, decision=decision)

    def _nothing(self) -> RunError | ConfigError:
        failed = [trial for trial in self.trials if trial.state == "failed"]
        if failed:
            return RunError(
                f"none of {len(self.trials)} trials completed, {len(failed)} failed; the first: {failed[0].reason}"
            )
        measured = [trial for trial in self.trials if trial.excess]
        if not measured:  # points that the model cannot have
            reasons = [trial.reason for trial in self.trials]
            why = f"most often: {max(set(reasons), key=reasons.count)}"
        else:
            closest = min(measured, key=lambda trial: (trial.excess["limits"], trial.overrides))
            why = f"the closest: {closest.reason} ({' '.join(closest.overrides)})"
        return ConfigError(f"no point of the space is within its limits ({len(self.trials)} tried); {why}")
