"""All cells of a run on one set of loaded models: searches, then validations, then the summary."""

import logging
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from sahub import report, results
from sahub.config import Cell
from sahub.errors import RunError, SahubError
from sahub.evaluate import Plan, Request, prepare
from sahub.examples import Example, load_examples
from sahub.model import Counters, Model, load_model
from sahub.search import Search
from sahub.session import Session
from sahub.store import write_text
from sahub.trials import Study
from sahub.validate import Entry, Validation, validate
from sahub.weights import spec_of

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


@dataclass
class Work:
    """One model's cells: its session, its requests, and what to call as work is done."""

    session: Session
    advance: Callable[[str], None]
    requests: dict[str, list[Request]] = field(default_factory=dict)


def run_matrix(cells: Sequence[Cell], root: Path | None = None, *, show: bool = False) -> list[CellResult]:
    """Run every cell; results come in the order of the cells. A cell that fails is explained and loses nothing else.

    Writes the summary, the report and its pictures into `root` (None: the cells' common directory); `show` prints the
    table too.
    """
    found = [CellResult(cell) for cell in cells]
    counters: dict[str, Counters] = {}
    begin = time.monotonic()
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        bar = progress.add_task("loading", total=sum(_units(cell) for cell in cells))

        def advance(what: str) -> None:
            progress.update(bar, advance=1, description=what)

        for key, group in _grouped(found, lambda cell: repr((cell.settings.model, cell.settings.protocol.template))):
            with _guard(group):
                session = Session(_load(group[0].cell))
                counters[group[0].cell.choices.model] = session.model.counters
                _run_model(Work(session, advance), group)
    for result in found:
        if result.ok and result.study is not None and result.study.best is None:
            result.ok, result.message = False, _why_no_winner(result)
    directory = root or _common([cell.directory for cell in cells])
    report.write(directory, found, counters, seconds=time.monotonic() - begin, show=show)
    return found


def _run_model(work: Work, group: Sequence[CellResult]) -> None:
    for result in group:
        if "search" in result.cell.settings.phases:
            with _guard([result]), _timed([result]):
                result.study = _search(work, result.cell)
    ready = [result for result in group if "validate" in result.cell.settings.phases and result.ok and _entry(result)]
    for _, same in _grouped(ready, _validation_key):
        with _guard(same), _timed(same):
            _validate(work, same)


def _search(work: Work, cell: Cell) -> Study:
    settings = cell.settings.search
    requests = _requests(
        work, cell, "search", settings.max_requests, settings.max_context_length, settings.max_new_tokens
    )
    study = Search(cell, work.session, requests, lambda number: work.advance(f"search {cell.name} trial {number}")).run()
    results.write_study(cell, study, requests)
    return study


def _validate(work: Work, same: Sequence[CellResult]) -> None:
    cell = same[0].cell
    settings = cell.settings.validate
    requests = _requests(
        work, cell, "validate", settings.max_requests, settings.max_context_length, settings.max_new_tokens
    )
    plan = Plan(
        task=f"{cell.settings.task.benchmark}/{cell.settings.task.subset}",
        metric=cell.settings.task.metric,
        generate=True,
        max_new_tokens=settings.max_new_tokens,
        timeout_s=settings.timeout_s,
    )
    entries = [entry for entry in map(_entry, same) if entry is not None]
    name = f"validate {cell.choices.model} {cell.choices.task}"
    done = validate(work.session, entries, requests, plan, lambda: work.advance(name))
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
    tuned, default = study.best.overrides, study.default
    compare = cell.settings.validate.compare_default and default.state == "complete" and default.overrides != tuned
    return Entry(cell=cell, overrides=tuned, default=default.overrides if compare else None)


def _requests(
    work: Work, cell: Cell, split: str, max_requests: int | None, max_context_length: int, max_new_tokens: int | None
) -> list[Request]:
    """The prepared examples of a split, made once for all cells that ask for the same."""
    task, model = cell.settings.task, work.session.model
    key = repr((task, split, max_requests, max_context_length, max_new_tokens, cell.settings.protocol.truncation, cell.settings.search.seed))
    if key not in work.requests:
        length = min(max_context_length, model.max_context_length)
        examples = load_examples(
            spec_of(cell),
            split=split,
            limit=max_requests,
            length=length - model.overhead_tokens,
            count_tokens=model.count_tokens,
            seed=cell.settings.search.seed,
        )
        work.requests[key] = prepare(
            model,
            _first_questions(examples, max_requests),
            max_context_length=max_context_length,
            max_new_tokens=max_new_tokens,
            truncation=cell.settings.protocol.truncation,
        )
    return work.requests[key]


def _first_questions(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Contexts until `limit` questions are reached, the last one cut short."""
    kept: list[Example] = []
    left = sum(len(example.questions) for example in examples) if limit is None else limit
    for example in examples:
        if left <= 0:
            break
        questions = example.questions[:left]
        left -= len(questions)
        kept.append(Example(id=example.id, context=example.context, questions=questions))
    return kept


def _load(cell: Cell) -> Model:
    settings = cell.settings.model
    if cell.settings.compute.threads is not None:
        torch.set_num_threads(cell.settings.compute.threads)
    return load_model(
        settings.path,
        name=cell.choices.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        device_map=settings.device_map,
        attn_implementation=settings.attn_implementation,
        trust_remote_code=settings.trust_remote_code,
        max_context_length=settings.max_context_length,
        template=cell.settings.protocol.template,
    )


def _validation_key(cell: Cell) -> str:
    settings = cell.settings
    return repr((settings.task, settings.validate, settings.protocol, settings.search.seed))


def _grouped(found: Sequence[CellResult], key: Callable[[Cell], str]) -> Iterator[tuple[str, list[CellResult]]]:
    groups: dict[str, list[CellResult]] = {}
    for result in found:
        groups.setdefault(key(result.cell), []).append(result)
    yield from groups.items()


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
        log.error("cell=%s failed: %s", result.cell.name, message)
        result.ok, result.message = False, message


@contextmanager
def _timed(group: Sequence[CellResult]) -> Iterator[None]:
    begin = time.monotonic()
    yield
    for result in group:
        result.seconds += (time.monotonic() - begin) / len(group)


def _why_no_winner(result: CellResult) -> str:
    study = result.study
    assert study is not None
    complete = [trial for trial in study.trials if trial.state == "complete"]
    nearest = min(trial.measures["density"] for trial in complete)
    target = result.cell.settings.objective.density
    asked = "its targets" if target is None else f"density {target:g}"
    return str(RunError(f"none of {len(complete)} complete trials is feasible: {asked} asked, the lowest density measured is {nearest:.4f}"))


def _units(cell: Cell) -> int:
    """Steps of the progress bar a cell is worth, roughly."""
    phases, search, check = cell.settings.phases, cell.settings.search, cell.settings.validate
    return ("search" in phases) * search.num_samples + ("validate" in phases) * (check.max_requests or 1)


def _common(directories: Sequence[Path]) -> Path:
    return directories[0] if len(directories) == 1 else directories[0].parent
