"""Who does the work: one loaded model with its prepared requests, asked for outcomes batch by batch."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeAlias, TypeVar

import torch
import transformers

from sahub.attention.call import Geometry
from sahub.config.cell import Cell
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.model import Counters
from sahub.engine.outcome import Outcome
from sahub.engine.requests import Prepared, Request, load
from sahub.engine.session import Attention, Session
from sahub.files.atomic import cache_folder
from sahub.files.journal import Journal
from sahub.models.weights import digest_of_model


def nothing() -> None:
    """Counts nothing: where nobody looks on."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Stacks to run over requests; none of them depends on how another ends. `on_request` counts finished contexts."""

    requests: Sequence[Request]
    attentions: Sequence[Attention]
    plan: Plan
    spent: Sequence[float] = ()  # seconds of their time that the stacks have used up on other requests
    until: float = math.inf  # of `time.monotonic()`: what is not done by then is not done
    max_concurrent: int | None = None  # workers at once; None: all
    on_request: Callable[[], None] = nothing


T = TypeVar("T")
Work: TypeAlias = Generator[Batch, list[Outcome], T]


class Workers(Protocol):
    """What a search or a validation knows of those who work for it."""

    name: str  # of the model
    geometry: Geometry

    @property
    def counters(self) -> Counters:
        """Receipts of all that was done so far."""

    def requests(self, cell: Cell, split: str) -> list[Request]:
        """The cell's requests for `search`, `decide` or `validate`. Raises what loading and preparing raise."""

    def run(self, work: Work[T]) -> T:
        """Do every batch that `work` asks for and hand it the outcomes, in the order of its attentions."""

    def search(self, work: Work[T]) -> T:
        """The same, for work whose stacks are trials."""


class Worker:
    """One loaded model: what does the work in this process, or in a process of its own."""

    def __init__(self, cell: Cell) -> None:
        settings = cell.settings
        self.journal = Journal(settings.cache_dir, force=settings.force)
        model = load(cell)
        fingerprint = {
            "files": digest_of_model(settings.model.path, settings.model.revision, settings.cache_dir),
            "dtype": str(model.hf.dtype),
            "arithmetic": _arithmetic(model.device),
            "attention": model.hf.config._attn_implementation,
            "stop_ids": sorted(model.stop_ids),
            "versions": [torch.__version__, transformers.__version__],
        }
        traces = None if settings.force else cache_folder(settings.cache_dir) / "traces"
        self.session = Session(
            model,
            fingerprint=fingerprint,
            prefix_bytes=settings.compute.prefix_mib << 20,
            traces=traces,
            offload=settings.compute.offload,
            folder=cache_folder(settings.cache_dir) / "contexts",
        )
        self.prepared = Prepared(model)
        self.geometry, self.name = model.geometry, model.name

    @property
    def counters(self) -> Counters:
        """Receipts of what this worker did."""
        return self.session.model.counters

    def requests(self, cell: Cell, split: str) -> list[Request]:
        """See Workers."""
        return self.prepared.requests(cell, split)

    def evaluate(self, batch: Batch) -> list[Outcome]:
        """The outcomes of one batch."""
        return evaluate(
            self.session,
            batch.requests,
            batch.attentions,
            batch.plan,
            spent=batch.spent,
            until=batch.until,
            journal=self.journal,
            on_request=batch.on_request,
        )

    def run(self, work: Work[T]) -> T:
        """See Workers."""
        return drive(work, self.evaluate)

    search = run


def _arithmetic(device: torch.device) -> str:
    """What the last digits of a number depend on: the kind of GPU, or of CPU, and the threads that share a sum."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{device.type}, {torch.backends.cpu.get_cpu_capability()}, {torch.get_num_threads()} threads"


def drive(work: Work[T], evaluate: Callable[[Batch], list[Outcome]]) -> T:
    """Answer every batch of `work`, one after the other; what goes wrong on the way is thrown into it."""
    try:
        batch = next(work)
        while True:
            try:
                outcomes = evaluate(batch)
            except Exception as error:  # noqa: BLE001
                batch = work.throw(error)
            else:
                batch = work.send(outcomes)
    except StopIteration as stop:
        result: T = stop.value
        return result
