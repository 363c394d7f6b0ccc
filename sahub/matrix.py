"""All cells of a run on one set of loaded models: searches, then validations, then the summary."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sahub import report, results
from sahub.config import Cell
from sahub.errors import SahubError
from sahub.model import Counters
from sahub.progress import Display
from sahub.reproduce import reproducing
from sahub.search import Search
from sahub.store import write_text
from sahub.trials import Study, plan_of
from sahub.validate import Entry, Validation, validate
from sahub.workers import Work, Worker, Workers

log = logging.getLogger(__name__)


@dataclass
class CellResult:
    """How a cell ended: `ok`, or a message that says why not."""

    cell: Cell
    ok: bool = True
    message: str = ""
    study: Study | None = None
    validation: Validation | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0


def run_matrix(cells: Sequence[Cell], root: Path | None = None, *, show: bool = False) -> list[CellResult]:
    """Run every cell; results come in the order of the cells. A cell that fails is explained and loses nothing else.

    Writes the summary, the report and its pictures into `root` (None: the cells' common directory); `show` prints the
    table too.
    """
    found = [CellResult(cell) for cell in cells]
    directory = root or _common([cell.directory for cell in cells])
    counters: dict[str, Counters] = {}
    begin = time.monotonic()
    with Display(sum(len(cell.settings.phases) for cell in cells)) as display:
        for group in _grouped(found, _workers_key):
            with _guard(group), _workers(group[0].cell, directory) as workers:
                workers.search(_searches(workers, display, group))
                workers.run(_validations(workers, display, group))
                counters[_new_name(counters, workers.name)] = workers.counters
    for result in found:
        if result.ok and result.study is not None and result.study.best is None:
            result.ok, result.message = False, _why_no_winner(result)
    report.write(directory, found, counters, seconds=time.monotonic() - begin, show=show)
    return found


@contextmanager
def _workers(cell: Cell, directory: Path) -> Iterator[Workers]:
    """Who does a model's work: this process, or Ray's."""
    if cell.settings.compute.name == "inline":
        yield Worker(cell)
        return
    from sahub import ray_workers  # seconds, which an inline run does not pay

    with (
        ray_workers.started(cell.settings.compute),
        ray_workers.RayWorkers(cell, directory / "ray_results") as workers,
    ):
        yield workers


def _workers_key(cell: Cell) -> str:
    settings = cell.settings
    return repr((settings.model, settings.protocol.template, settings.compute, settings.cache_dir, settings.force))


def _searches(workers: Workers, display: Display, group: Sequence[CellResult]) -> Work[None]:
    for result in group:
        if "search" in result.cell.settings.phases:
            with result.cell.logged(), _guard([result]), _timed([result]):
                result.study = yield from _search(workers, display, result.cell)


def _validations(workers: Workers, display: Display, group: Sequence[CellResult]) -> Work[None]:
    ready = [result for result in group if "validate" in result.cell.settings.phases and result.ok and _entry(result)]
    for same in _grouped(ready, _validation_key):
        with _guard(same), _timed(same):
            yield from _validate(workers, display, same)


def _search(workers: Workers, display: Display, cell: Cell) -> Work[Study]:
    base = reproducing(cell)  # before any work: what fails here must not cost a search
    requests = workers.requests(cell, "search")
    with display.steps(f"search {cell.name}", cell.settings.search.num_samples) as step:
        study = yield from Search(cell, workers.geometry, requests, step).work()
    results.write_study(cell, study, requests, base)
    return study


def _validate(workers: Workers, display: Display, same: Sequence[CellResult]) -> Work[None]:
    cell = same[0].cell
    requests = workers.requests(cell, "validate")
    plan = plan_of(cell, cell.settings.validate, generate=True)
    entries = [entry for entry in map(_entry, same) if entry is not None]
    with display.steps(f"validate {cell.choices.task}", len(requests), cells=len(same)) as step:
        done = yield from validate(entries, requests, plan, step)
    for result, validation in zip(same, done, strict=True):
        with _guard([result]):
            result.validation = validation
            result.figures = validation.figures()
            results.write_validation(result.cell, validation, result.figures)


def _entry(result: CellResult) -> Entry | None:
    """What a cell validates: its winner, or without a search the configuration as it was composed."""
    cell, study = result.cell, result.study
    if "search" not in cell.settings.phases:
        return Entry(cell=cell, overrides=())
    if study is None or study.best is None:
        return None
    compare = cell.settings.validate.compare_default and study.default.state == "complete"
    return Entry(cell=cell, overrides=study.best.overrides, default=study.default.overrides if compare else None)


def _validation_key(cell: Cell) -> str:
    settings = cell.settings
    return repr((settings.task, settings.validate, settings.protocol, settings.search.seed))


def _grouped(found: Sequence[CellResult], key: Callable[[Cell], str]) -> list[list[CellResult]]:
    groups: dict[str, list[CellResult]] = {}
    for result in found:
        groups.setdefault(key(result.cell), []).append(result)
    return list(groups.values())


def _new_name(held: Mapping[str, object], name: str) -> str:
    """The name, numbered where another model of the run has it."""
    return name if name not in held else f"{name} ({len(held) + 1})"


@contextmanager
def _guard(group: Sequence[CellResult]) -> Iterator[None]:
    """What goes wrong inside is these cells' failure, and nobody else's."""
    try:
        yield
    except SahubError as error:
        _fail(group, str(error))
    except Exception as error:  # noqa: BLE001
        for result in group:
            write_text(result.cell.directory / "error.txt", traceback.format_exc())
        _fail(group, f"{type(error).__name__}: {error} (traceback in {group[0].cell.directory / 'error.txt'})")


def _fail(group: Sequence[CellResult], message: str) -> None:
    for result in group:
        log.info("cell=%s failed: %s", result.cell.name, message)
        result.ok, result.message = False, message


@contextmanager
def _timed(group: Sequence[CellResult]) -> Iterator[None]:
    begin = time.monotonic()
    try:
        yield
    finally:
        for result in group:
            result.seconds += (time.monotonic() - begin) / len(group)


def _why_no_winner(result: CellResult) -> str:
    study = result.study
    assert study is not None
    objective, complete = result.cell.settings.objective, study.counts()["complete"]
    asked = {"density": objective.density, "aux_bits": objective.aux_bits}
    lowest = {name: min(trial.measures[name] for trial in study.trials if trial.state == "complete") for name in asked}
    targets = [
        f"{name} {bound:g} (lowest measured {lowest[name]:.4g})" for name, bound in asked.items() if bound is not None
    ]
    return f"none of {complete} complete trials meets its targets: {', '.join(targets)}"


def _common(directories: Sequence[Path]) -> Path:
    return directories[0] if len(directories) == 1 else directories[0].parent
