"""Workers in processes of their own: Ray actors that load the model once and keep it for all cells.

A unit is one stack over all requests of a batch (searches, run by Tune) or stacks over one request (validations).
Which worker does a unit, and when, changes no number; outcomes are handed back in the order they were asked for.
"""

import contextlib
import logging
import time
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import ray

from sahub.attention.call import Geometry
from sahub.compute.devices import number_of_workers
from sahub.compute.ray_calls import LIVES, cause_of, death
from sahub.compute.ray_slots import Slot
from sahub.compute.ray_units import Units
from sahub.compute.worker import Batch, Work, Worker, drive
from sahub.config.cell import Cell
from sahub.engine.model import Counters
from sahub.engine.outcome import Outcome
from sahub.engine.requests import Request, lines_about, name_of
from sahub.errors import RunError
from sahub.files.atomic import cache_folder

log = logging.getLogger(__name__)
T = TypeVar("T")


class _Actor:
    """A worker in a process of its own. Outcomes stay here until the driver takes them."""

    def __init__(self, cell: Cell) -> None:
        self.cell = cell
        self.outcomes: dict[int, Outcome] = {}

    def start(self) -> tuple[Geometry, str, str | None, Counters]:
        """Load the model; not in __init__, so that what goes wrong is raised as it is."""
        self.worker = Worker(self.cell)
        doubt = self.worker.session.model.doubt
        return self.worker.geometry, self.worker.name, doubt, self.worker.counters

    def requests(self, cell: Cell, split: str) -> list[Request]:
        """See Workers."""
        return self.worker.requests(cell, split)

    def evaluate(self, batch: Batch, seconds_left: float) -> tuple[list[Outcome], Counters]:
        """The outcomes of a batch, and all that this worker did so far."""
        done = self.worker.evaluate(replace(batch, until=time.monotonic() + seconds_left))
        return done, self.worker.counters

    def trial(self, batch: Batch, unit: int, seconds_left: float) -> dict[str, Any]:
        """One stack of a batch; what Tune is told of it. The outcome waits to be taken."""
        one = replace(batch, attentions=[batch.attentions[unit]], spent=batch.spent[unit : unit + 1])
        [[outcome], _] = self.evaluate(one, seconds_left)
        self.outcomes[unit] = outcome
        return {"state": outcome.state, "reason": outcome.reason, "seconds": outcome.seconds}

    def take(self, unit: int) -> tuple[Outcome, Counters]:
        """The outcome of a unit, once, and all that this worker did so far."""
        return self.outcomes.pop(unit), self.worker.counters


@dataclass
class RayWorkers:
    """See Workers: the same work by several processes. Enter it to have them, leave it to be rid of them."""

    cell: Cell
    results: Path  # where Tune writes
    namespace: str = field(default_factory=lambda: f"sahub-{uuid4().hex[:12]}")
    slots: list[Slot] = field(default_factory=list)
    _past: list[Counters] = field(default_factory=list)  # of workers that died, as last told
    _told: set[str] = field(default_factory=set)  # what was said

    def __enter__(self) -> "RayWorkers":
        settings = self.cell.settings
        folder = cache_folder(settings.cache_dir).absolute()  # ours, on whatever machine
        self.cell = replace(self.cell, settings=replace(settings, cache_dir=str(folder)))
        try:
            self._check_room()
            self.slots = [self._spawn() for _ in range(number_of_workers(settings.compute))]
            if "search" in settings.phases:
                import sahub.compute.ray_tune  # noqa: F401  (its seconds pass while the workers load)
            for slot in self.slots:
                self.geometry, self.name = self._ready(slot)
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *details: object) -> None:
        for slot in self.slots:
            with contextlib.suppress(Exception):
                ray.kill(slot.handle)

    @property
    def counters(self) -> Counters:
        """Receipts of all workers together."""
        found = [asdict(counters) for counters in [*self._past, *(slot.counters for slot in self.slots)]]
        return Counters(**{name: sum(each[name] for each in found) for name in found[0]})

    def requests(self, cell: Cell, split: str) -> list[Request]:
        """See Workers."""
        slot = self.slots[0]
        for _ in range(LIVES):
            try:
                found: list[Request] = ray.get(slot.handle.requests.remote(cell, split))
                self._tell(cell, split, found)
                return found
            except ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            except ray.exceptions.RayError as error:
                self.replace(slot, death(error))
        raise RunError(f"{cell.choices.task}: its examples could not be prepared: that kills its worker")

    def _tell(self, cell: Cell, split: str, requests: list[Request]) -> None:
        """Say once what is to be said of them: what an actor logs is not seen here."""
        limits = cell.settings.validate if split == "validate" else cell.settings.search
        lines = lines_about(requests, cell.settings.protocol.truncation, limits.max_new_tokens)
        self._tell_once([f"{name_of(cell, split)} {line}" for line in lines])

    def _tell_once(self, lines: list[str]) -> None:
        for said in lines:
            if said not in self._told:
                self._told.add(said)
                log.warning("%s", said)

    def run(self, work: Work[T]) -> T:
        """See Workers; units are requests."""
        return drive(work, lambda batch: Units(self, batch).outcomes())

    def search(self, work: Work[T]) -> T:
        """See Workers; units are stacks, run by Ray Tune."""
        from sahub.compute.ray_tune import run_trials  # seconds, which a validation does not pay

        return run_trials(self, work)

    def replace(self, slot: Slot, why: str) -> None:
        """A new worker in the place of one that died or hangs. Raises RunError where none can start."""
        log.warning("a worker was lost (%s); another one takes its place", why)
        self._put_new(slot)
        self._ready(slot)

    def _put_new(self, slot: Slot) -> None:
        with contextlib.suppress(Exception):
            ray.kill(slot.handle)
        self._past.append(slot.counters)
        fresh = self._spawn()
        slot.name, slot.handle, slot.starting, slot.counters = fresh.name, fresh.handle, fresh.starting, fresh.counters

    def _ready(self, slot: Slot) -> tuple[Geometry, str]:
        """Wait until the worker of a slot has its model; where it dies of that, another one may try."""
        for life in range(1, LIVES + 1):
            try:
                geometry, name, doubt, slot.counters = ray.get(slot.starting)
                self._tell_once([doubt] if doubt else [])
                return geometry, name
            except ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            except ray.exceptions.RayError as error:
                if life == LIVES:
                    raise RunError(f"a worker could not load the model: {death(error)}") from error
                self._put_new(slot)
        raise AssertionError("not reached")

    def _spawn(self) -> Slot:
        compute, name = self.cell.settings.compute, f"worker-{uuid4().hex[:8]}"
        options: dict[str, Any] = {"name": name, "namespace": self.namespace, "num_gpus": self._gpu_share()}
        if compute.name == "cluster":
            options["scheduling_strategy"] = "SPREAD"
        kind = ray.remote(num_cpus=1, max_restarts=0, max_task_retries=0)(_Actor)
        handle = kind.options(**options).remote(self.cell)
        return Slot(name=name, handle=handle, starting=handle.start.remote())

    def _gpu_share(self) -> float:
        """Of a GPU, for each worker: none on the CPUs of a machine, or of a cluster without GPUs."""
        compute, device = self.cell.settings.compute, self.cell.settings.model.device
        on_gpus = compute.name == "cluster" and device != "cpu" and ray.cluster_resources().get("GPU", 0) > 0
        return 1.0 / compute.actors_per_gpu if compute.name == "gpu" or on_gpus else 0.0

    def _check_room(self) -> None:
        """Raise RunError for a cluster that can never start all workers: they would be waited for without end."""
        compute, has = self.cell.settings.compute, ray.cluster_resources()
        needs = {"CPU": float(compute.workers), "GPU": compute.workers * self._gpu_share()}
        for kind, needed in needs.items() if compute.name == "cluster" else ():
            if needed > has.get(kind, 0.0):
                raise RunError(
                    f"compute.workers={compute.workers}: needs {needed:g} {kind}s; the cluster has {has.get(kind, 0):g}"
                )
