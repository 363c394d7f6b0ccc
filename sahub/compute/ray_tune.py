"""The trials of a search as Ray Tune trials: one point each, in generations whatever finishes first."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import ray
from ray import tune
from ray.tune.logger import JsonLoggerCallback
from ray.tune.search import Searcher

from sahub.compute.ray_calls import GRACE_S, LIVES, NO_ANSWER, death, trial
from sahub.compute.ray_slots import Slot, Slotted
from sahub.compute.worker import Batch, Work, nothing
from sahub.engine.outcome import Outcome, failed
from sahub.errors import RunError
from sahub.files.names import file_name

T = TypeVar("T")


def run_trials(workers: Slotted, work: Work[T]) -> T:
    """Do every stack that `work` asks for as a trial of one Tune run. Raises what `work` raises."""
    searcher = _Generations(workers, work)
    tuner = tune.Tuner(
        tune.with_resources(trial, {"cpu": 0.001}),  # the worker behind it has the resources
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            num_samples=-1,
            max_concurrent_trials=len(workers.slots),
            reuse_actors=True,
            trial_dirname_creator=lambda trial: trial.trial_id,
        ),
        run_config=tune.RunConfig(
            name=file_name(workers.name),
            storage_path=str(workers.results.resolve()),
            verbose=0,
            callbacks=[JsonLoggerCallback()],
        ),
    )
    tuner.fit()
    result: T = searcher.result()
    return result


class _Generations(Searcher):
    """Hands the stacks of one batch to Tune, and takes the next batch of the work once all of them ended."""

    def __init__(self, workers: Slotted, work: Work[Any]) -> None:
        super().__init__(metric="seconds", mode="min")
        self.workers, self.work = workers, work
        self.free = list(workers.slots)
        self.open: dict[str, tuple[int, int, Slot]] = {}  # by Tune's name: which batch, which stack of it, who
        self.turn = 0  # batches taken
        self.done: dict[int, Outcome] = {}
        self.over = False
        self.returned: Any = None
        self.error: BaseException | None = None
        self._take(lambda: next(work))

    def result(self) -> Any:
        """What the work returned. Raises what it raised."""
        if self.error is not None:
            raise self.error
        if not self.over:
            raise RunError("Ray Tune ended before the search did")
        return self.returned

    def _take(self, step: Callable[[], Batch]) -> None:
        try:
            self.batch = step()
        except StopIteration as stop:
            self.over, self.returned = True, stop.value
        except BaseException as error:  # noqa: BLE001  (Tune would hide it; result() raises it)
            self.over, self.error = True, error
        else:
            self.turn += 1
            self.done = {}
            self.waiting = deque((unit, 1) for unit in range(len(self.batch.attentions)))
            self.lives: dict[int, int] = {}
            self.ref = ray.put(replace(self.batch, on_request=nothing))
            if not self.waiting:
                self._take(lambda: self.work.send([]))

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """The next stack and who runs it; None while all workers are busy or the generation is open."""
        if self.over:
            return str(Searcher.FINISHED)
        at_once = self.batch.max_concurrent or len(self.workers.slots)
        if not self.waiting or not self.free or len(self.open) >= at_once:
            return None
        (unit, life), slot = self.waiting.popleft(), self.free.pop()
        self.lives[unit] = life
        self.open[trial_id] = self.turn, unit, slot
        return {
            "unit": unit,
            "batch": self.ref,
            "worker": slot.name,
            "namespace": self.workers.namespace,
            "seconds_left": self.batch.until - time.monotonic(),
            "limit_s": min(self.batch.plan.timeout_s + GRACE_S, 1e6),
        }

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Take the outcome of a stack from its worker, and the next batch once all of this one are there."""
        turn, unit, slot = self.open.pop(trial_id)
        result = {"lost": "its Tune trial ended without a result"} if error or not result else result
        self.free.append(slot)
        if turn != self.turn or self.over:
            return  # of a batch that was given up
        try:
            self._note(unit, slot, result)
        except Exception as error:  # noqa: BLE001
            problem = error  # no worker can be had: the cell's failure
            self._take(lambda: self.work.throw(problem))
            return
        if len(self.done) == len(self.batch.attentions):
            outcomes = [self.done[i] for i in range(len(self.batch.attentions))]
            self._take(lambda: self.work.send(outcomes))

    def _note(self, unit: int, slot: Slot, told: Mapping[str, Any]) -> None:
        """Keep the outcome of a stack; one whose worker died is tried once more by another."""
        attention, why = self.batch.attentions[unit], str(told.get("lost") or "")
        if told.get("failed"):
            self.done[unit] = failed(attention, str(told["failed"]))
        elif not why:
            try:
                self.done[unit], slot.counters = ray.get(slot.handle.take.remote(unit))
            except ray.exceptions.RayError as problem:
                why = death(problem)
        if not why:
            return
        self.workers.replace(slot, why)
        if self.lives[unit] < LIVES and why != NO_ANSWER:
            self.waiting.append((unit, self.lives[unit] + 1))
        else:
            self.done[unit] = failed(attention, why if why == NO_ANSWER else f"killed worker: {why}")

    def save(self, checkpoint_path: str) -> None:
        """Nothing: a search that is run again continues from the journal."""
        Path(checkpoint_path).touch()

    def restore(self, checkpoint_path: str) -> None:
        """Nothing, see save."""

    def __reduce__(self) -> tuple[Any, ...]:
        """Tune pickles its searcher to restore it; ours is not restored."""
        return Searcher, ()
