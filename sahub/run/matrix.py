"""All cells of a run on one set of loaded models: searches, then validations, then the summary."""

import logging
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path

from sahub.compute import pool
from sahub.compute.worker import Work, Workers
from sahub.config.cell import Cell
from sahub.config.settings import PHASES
from sahub.engine.model import Counters
from sahub.errors import SahubError
from sahub.progress import Display
from sahub.report import report
from sahub.results import cell_files
from sahub.results.cell_result import CellResult, explain, fail, guard, why_no_winner
from sahub.results.reproduce import reproducing
from sahub.results.tracked import Tracked
from sahub.results.validate import Entry, validate
from sahub.run.estimate import shortened, trials_of
from sahub.search.objective import reads_seconds
from sahub.search.scope import Part, search_key, seen_from
from sahub.search.search import Search
from sahub.search.step_costs import step_costs
from sahub.search.trial import plan_of

log = logging.getLogger(__name__)


def run_matrix(
    cells: Sequence[Cell],
    root: Path | None = None,
    *,
    show: bool = False,
    refused: Mapping[Path, str] | None = None,
) -> list[CellResult]:
    """Run every cell; results come in the order of the cells. A cell that fails is explained and loses nothing else.

    Writes the summary, the report and its pictures into `root` (None: the cells' common directory); `show` prints the
    table too. `refused` says of cells, by their directory, why they cannot be run.
    """
    broken: set[str] = set()
    found = [CellResult(cell, Tracked(cell, broken)) for cell in cells]
    for result in found:
        if why := (refused or {}).get(result.cell.directory):
            fail([result], why)
    runnable = [result for result in found if result.ok]
    directory = root or _common([cell.directory for cell in cells])
    counters: dict[str, Counters] = {}
    begin = time.monotonic()
    for said in shortened([result.cell for result in runnable]):
        log.warning("%s", said)
    display_of = Display({phase: sum(phase in one.cell.settings.phases for one in runnable) for phase in PHASES})
    with _tracked(found), display_of as display, guard(runnable), pool.ready([result.cell for result in runnable]):
        for group in _grouped(runnable, _workers_key):
            with guard(group), pool.workers(group[0].cell, directory / "ray_results") as workers:
                _both_phases(workers, display, group)
                counters[_new_name(counters, workers.name)] = workers.counters
    for result in found:
        if result.ok and result.study is not None and result.study.best is None:
            result.ok, result.message = False, why_no_winner(result)
            explain(result)
    report.write(directory, found, counters, seconds=time.monotonic() - begin, show=show)
    return found


@contextmanager
def _tracked(found: Sequence[CellResult]) -> Iterator[None]:
    """Trackers hear how every cell ended, whatever happens inside."""
    try:
        yield
    finally:
        for result in found:
            won = result.study is None or result.study.best is not None
            result.tracked.close(result.ok and result.finished and won)


def _both_phases(workers: Workers, display: Display, group: Sequence[CellResult]) -> None:
    if any("search" in result.cell.settings.phases for result in group):
        workers.search(_searches(workers, display, group))
    workers.run(_validations(workers, display, group))


def _workers_key(cell: Cell) -> str:
    settings = cell.settings
    return repr((settings.model, settings.compute, settings.cache_dir, settings.force))


def _searches(workers: Workers, display: Display, group: Sequence[CellResult]) -> Work[None]:
    for same in _grouped([result for result in group if "search" in result.cell.settings.phases], search_key):
        with ExitStack() as logs:
            for result in same:
                logs.enter_context(result.cell.logged())
            with guard(same), _accounted(workers, same):
                yield from _search(workers, display, same)


def _validations(workers: Workers, display: Display, group: Sequence[CellResult]) -> Work[None]:
    asked = [result for result in group if "validate" in result.cell.settings.phases]
    ready = [result for result in asked if result.ok and _entry(result)]
    display.skip("validate", len(asked) - len(ready))
    for same in _grouped(ready, _validation_key):
        with guard(same), _accounted(workers, same):
            yield from _validate(workers, display, same)


def _search(workers: Workers, display: Display, same: Sequence[CellResult]) -> Work[None]:
    """One search, of one cell or of cells that differ in their task alone."""
    cell, others = same[0].cell, len(same) - 1
    what = cell.name + (f" and {others} other tasks" if others else "")
    with display.steps("search", what, "trials", cells=len(same)) as step:
        bases = [reproducing(result.cell) for result in same]  # before any work: what fails here must not cost a search
        for result in same:
            result.tracked.start()
        parts = _parts(workers, same)
        step.total = trials_of(cell)

        def on_trial() -> None:
            if search.trials[-1].state != "rejected":  # which are as many as the sampler likes
                step()
            for result in same:
                result.tracked.trial(search.trials[-1])

        search = Search(parts, workers.geometry, on_trial)
        try:
            study = yield from search.work()
        except SahubError:
            for part in parts:
                cell_files.write_trials(part.cell, search.trials)  # what was tried, and why nothing came of it
            raise
    for result, part, base in zip(same, parts, bases, strict=True):
        folder = cell_files.write_study(part.cell, study, part.requests, base)
        result.study = seen_from(study, part.cell.choices.task)
        result.tracked.winner(result.study, folder)


def _parts(workers: Workers, same: Sequence[CellResult]) -> list[Part]:
    """The tasks of one search with their requests, and what predicts their steps where the objective reads it."""
    cells = [result.cell for result in same]
    found = [Part(cell, workers.requests(cell, "search"), workers.requests(cell, "decide")) for cell in cells]
    if not reads_seconds(cells[0].settings.objective):
        return found
    longest = max(len(request.context_ids) for part in found for request in part.requests)
    costs = step_costs(cells[0], workers.geometry, longest)
    for result in same:
        result.costs = costs
    return [replace(part, costs=costs) for part in found]


def _validate(workers: Workers, display: Display, same: Sequence[CellResult]) -> Work[None]:
    cell = same[0].cell
    entries = [entry for entry in map(_entry, same) if entry is not None]
    with display.steps("validate", cell.choices.task, "contexts", cells=len(same)) as step:
        requests = workers.requests(cell, "validate")
        step.total = len(requests)
        plan = replace(plan_of(cell, cell.settings.validate, fidelity="generate"), explained=True)
        done = yield from validate(entries, requests, plan, step)
    for result, validation in zip(same, done, strict=True):
        with guard([result]):
            figures = validation.figures()
            cell_files.write_validation(result.cell, validation, figures, requests)
            result.validation, result.figures = validation, figures
            result.tracked.validation(figures)


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
def _accounted(workers: Workers, group: Sequence[CellResult]) -> Iterator[None]:
    """Notes what the cells took: seconds, each its share, and contexts x stacks."""
    begin, before = time.monotonic(), replace(workers.counters)
    try:
        yield
    finally:
        after = workers.counters
        for result in group:
            result.seconds += (time.monotonic() - begin) / len(group)
            result.computed += after.computed - before.computed
            result.served += after.served - before.served


def _common(directories: Sequence[Path]) -> Path:
    return directories[0] if len(directories) == 1 else directories[0].parent
