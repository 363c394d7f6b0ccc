"""Workers in processes of their own: Ray actors that load the model once and keep it for all cells.

A unit is one stack over all requests of a batch (searches, run by Tune) or all stacks over one request (validations).
Which worker does a unit, and when, changes no number; outcomes are handed back in the order they were asked for.
"""

import contextlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from queue import SimpleQueue
from typing import Any, TypeVar
from uuid import uuid4

from sahub.config import Cell
from sahub.errors import RunError, SahubError
from sahub.model import Counters
from sahub.outcomes import Outcome, failed, joined
from sahub.prepare import Request
from sahub.settings import Compute
from sahub.workers import Batch, Work, Worker, drive

# Ray reads these when it is imported.
for _name, _value in {
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_DEDUP_LOGS": "0",
    "RAY_TRAIN_ENABLE_V2_MIGRATION_WARNINGS": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_DISABLE_AUTO_CALLBACK_SYNCER": "1",
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
}.items():
    os.environ.setdefault(_name, _value)

import ray  # noqa: E402

log = logging.getLogger(__name__)
T = TypeVar("T")
GRACE_S = 60.0  # beyond a unit's own limit, before its worker counts as hung
NO_ANSWER = "timeout: its worker did not answer"
LIVES = 2  # how often a unit may lose its worker before it counts as what kills them


def number_of_workers(compute: Compute) -> int:
    """Processes that a configuration asks for."""
    gpus = len(compute.gpu_ids) if compute.name == "gpu" else 0
    return gpus * compute.actors_per_gpu if gpus else compute.workers


@contextlib.contextmanager
def started(compute: Compute) -> Iterator[None]:
    """Ray, started once for the run or joined where a cluster has an address. Raises RunError where it cannot start."""
    if ray.is_initialized():
        yield
        return
    logging.getLogger("ray").setLevel(logging.ERROR)
    options: dict[str, Any] = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": False}
    if compute.name == "cluster":
        options["address"] = compute.address
    else:
        # Logical: workers are what we start, so Ray never makes one wait for another.
        options |= {"num_cpus": 2 * number_of_workers(compute) + 2, "include_dashboard": False}
    if compute.name == "gpu" and compute.gpu_ids:
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(map(str, compute.gpu_ids))
        options["num_gpus"] = len(compute.gpu_ids)
    for attempt in (1, 2):  # its own limit of 30 s is too short for a busy machine
        try:
            ray.init(**options)
            break
        except Exception as error:
            ray.shutdown()
            if attempt == 2:
                where = f"join the cluster at {compute.address}" if compute.name == "cluster" else "start"
                first = (str(error).strip().splitlines() or [type(error).__name__])[0]
                raise RunError(
                    f"compute={compute.name}: Ray could not {where} ({type(error).__name__}: {first}); "
                    "run again with compute=inline to work without it"
                ) from error
            log.warning("Ray did not start (%s); trying once more", type(error).__name__)
    try:
        yield
    finally:
        ray.shutdown()


class _Actor:
    """A worker in a process of its own. Outcomes stay here until the driver takes them."""

    def __init__(self, cell: Cell) -> None:
        self.worker = Worker(cell)
        self.outcomes: dict[int, Outcome] = {}

    def tell(self, name: str) -> Any:
        """An attribute of the worker."""
        return getattr(self.worker, name)

    def call(self, name: str, *arguments: Any) -> Any:
        """What a method of the worker returns."""
        return getattr(self.worker, name)(*arguments)

    def trial(self, batch: Batch, unit: int) -> dict[str, Any]:
        """One stack of a batch; what Tune is told of it. The outcome waits to be taken."""
        [outcome] = self.worker.evaluate(replace(batch, attentions=[batch.attentions[unit]]))
        self.outcomes[unit] = outcome
        return {"state": outcome.state, "reason": outcome.reason, "seconds": outcome.seconds}

    def take(self, unit: int) -> Outcome:
        """The outcome of a unit, once."""
        return self.outcomes.pop(unit)


@dataclass
class Slot:
    """A worker's place: who is there changes when one dies."""

    name: str
    handle: Any
    lost: int = 0


@dataclass
class RayWorkers:
    """See Workers: the same work by several processes. Enter it to have them, leave it to be rid of them."""

    cell: Cell
    results: Path  # where Tune writes
    namespace: str = field(default_factory=lambda: f"sahub-{uuid4().hex[:12]}")
    slots: list[Slot] = field(default_factory=list)
    _past: Counters = field(default_factory=lambda: Counters(loads=0))  # of workers that died, as far as known

    def __enter__(self) -> "RayWorkers":
        compute = self.cell.settings.compute
        try:
            self.slots = [self._spawn() for _ in range(number_of_workers(compute))]
            self.geometry = self._call(self.slots[0].handle.tell.remote("geometry"))
            self.name = self._call(self.slots[0].handle.tell.remote("name"))
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
        found = [asdict(self._past), *(asdict(ray.get(slot.handle.tell.remote("counters"))) for slot in self.slots)]
        return Counters(**{name: sum(each[name] for each in found) for name in found[0]})

    def requests(self, cell: Cell, split: str) -> list[Request]:
        """See Workers."""
        found: list[Request] = self._call(self.slots[0].handle.call.remote("requests", cell, split))
        return found

    def run(self, work: Work[T]) -> T:
        """See Workers; units are requests."""
        return drive(work, self._by_request)

    def search(self, work: Work[T]) -> T:
        """See Workers; units are stacks, run by Ray Tune."""
        from sahub.ray_tune import run_trials  # seconds, which a validation does not pay

        return run_trials(self, work)

    def _spawn(self) -> Slot:
        compute, name = self.cell.settings.compute, f"worker-{uuid4().hex[:8]}"
        share = 1.0 / compute.actors_per_gpu if compute.name == "gpu" else 0.0
        kind = ray.remote(num_cpus=1, num_gpus=share, max_restarts=0, max_task_retries=0)(_Actor)
        options = {"name": name, "namespace": self.namespace, "runtime_env": {"env_vars": _environment(compute)}}
        return Slot(name=name, handle=kind.options(**options).remote(self.cell))

    def replace(self, slot: Slot) -> None:
        """A new worker in the place of one that died or hangs."""
        with contextlib.suppress(Exception):
            ray.kill(slot.handle)
        fresh = self._spawn()
        slot.name, slot.handle, slot.lost = fresh.name, fresh.handle, slot.lost + 1
        log.warning("a worker was lost; another one takes its place")

    def _call(self, ref: Any) -> Any:
        try:
            return ray.get(ref)
        except ray.exceptions.RayTaskError as error:
            raise cause_of(error) from None
        except ray.exceptions.RayActorError as error:
            raise RunError(f"a worker could not start: {first_line(error)}") from error

    def _by_request(self, batch: Batch) -> list[Outcome]:
        count = min(len(self.slots), batch.max_concurrent or len(self.slots))
        free: SimpleQueue[Slot] = SimpleQueue()
        for slot in self.slots[:count]:
            free.put(slot)

        def outcomes(request: Request) -> list[Outcome]:
            slot = free.get()
            try:
                return self._outcomes(slot, replace(batch, requests=[request], on_request=nothing))
            finally:
                free.put(slot)
                batch.on_request()

        with ThreadPoolExecutor(count) as threads:
            parts = list(threads.map(outcomes, batch.requests))
        return joined(batch.attentions, parts, batch.plan.timeout_s)

    def _outcomes(self, slot: Slot, batch: Batch) -> list[Outcome]:
        """What the worker in `slot` makes of a batch; when it dies, what another one makes of it."""
        reason = ""
        for _ in range(LIVES):
            try:
                done: list[Outcome] = ray.get(
                    slot.handle.evaluate.remote(batch), timeout=batch.plan.timeout_s + GRACE_S
                )
                return done
            except ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            except ray.exceptions.GetTimeoutError:
                self.replace(slot)
                return [failed(attention, NO_ANSWER) for attention in batch.attentions]
            except ray.exceptions.RayActorError as error:
                reason = f"killed worker: {first_line(error)}"
                self.replace(slot)
        return [failed(attention, reason) for attention in batch.attentions]


def nothing() -> None:
    """Counts nothing: progress is shown by the driver."""


def _environment(compute: Compute) -> dict[str, str]:
    return {"OMP_NUM_THREADS": str(compute.threads), "TOKENIZERS_PARALLELISM": "false"}


def cause_of(error: "ray.exceptions.RayTaskError") -> Exception:
    """What was raised inside a worker, without Ray's traceback around it."""
    cause = error.cause
    if isinstance(cause, SahubError):
        return type(cause)(str(cause))
    return RunError(f"a worker failed: {type(cause).__name__}: {first_line(cause)}")


def first_line(error: BaseException) -> str:
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
