"""Examine a task with a model: what its data hold, how long they are in tokens, and what scores it can give."""

from typing import Any

from sahub.config.cell import Cell
from sahub.data.examples import SPLITS, Example, TaskSpec
from sahub.data.loading import load_examples
from sahub.doctor import dataset, floors, lengths
from sahub.doctor.report import Report
from sahub.engine.model import Model
from sahub.engine.requests import load
from sahub.errors import SahubError
from sahub.models.weights import missing, spec_of
from sahub.progress import Display

SUBJECT = "task"
WORD = {"search": "a search", "validate": "a validation"}


def check(cell: Cell, report: Report) -> None:
    """Add what can be found out, cheapest first: data, tokens, a sample of answers."""
    spec, settings = spec_of(cell), cell.settings
    with Display({"doctor": 3}, "checks") as display:
        with display.steps("doctor", "data"):
            model = _reader(cell, report)
            examples = _loaded(cell, spec, model, report)
            held = dataset.facts_of(examples, dataset.survey(spec))
        report.add("data", held, dataset.rows_of(spec, held))
        report.problems += dataset.problems(spec, held)
        report.not_for += dataset.doubts(spec, held)
        if model is None or not examples:
            return
        with display.steps("doctor", "lengths"):
            phases = _measured(cell, model, examples, report)
        report.add("lengths", phases, lengths.rows_of(phases))
        report.problems += lengths.problems(phases)
        report.not_for += lengths.doubts(phases)
        scored = settings.doctor.dense and not held["questions_without_label"]
        if scored and examples.get("search") and not report.problems:
            with display.steps("doctor", "answers"):
                scores = floors.found(cell, load(cell), examples["search"])
            report.add("scores", scores, floors.rows_of(scores))
            report.not_for += floors.doubts(scores)
    report.good_for += [f"{WORD[split]} on {_counted(spec, held, split)}" for split in examples]


def _reader(cell: Cell, report: Report) -> Model | None:
    """What turns texts into tokens; None, with the reason in the report, where there is no model."""
    path, revision = cell.settings.model.path, cell.settings.model.revision
    try:
        if told := missing(path, revision):
            report.problems.append(told)
            return None
        return lengths.reader(cell)
    except SahubError as error:
        report.problems.append(str(error))
        return None


def _loaded(cell: Cell, spec: TaskSpec, model: Model | None, report: Report) -> dict[str, list[Example]]:
    """The contexts of both splits: all that there are, or of what is generated as many as the doctor asks."""
    found: dict[str, list[Example]] = {}
    generated = spec.is_generated
    if model is None and generated:
        return found
    for split in SPLITS:
        limits = cell.settings.search if split == "search" else cell.settings.validate
        longest = min(limits.max_context_length, model.max_context_length) if model else limits.max_context_length
        longest = min(cell.settings.task.length or longest, longest)
        try:
            found[split] = load_examples(
                spec,
                split=split,
                limit=cell.settings.doctor.requests if generated else None,
                length=longest - (model.overhead_tokens if model else 0),
                count_tokens=model.count_tokens if model else len,
                seed=cell.settings.doctor.seed,
            )
        except SahubError as error:
            if str(error) not in report.problems:
                report.problems.append(str(error))
    return found


def _measured(cell: Cell, model: Model, examples: dict[str, list[Example]], report: Report) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for split, held in examples.items():
        limits = cell.settings.search if split == "search" else cell.settings.validate
        try:
            found[split] = lengths.measured(model, held, limits, cell.settings.protocol)
        except SahubError as error:
            report.problems.append(f"{split}: {error}")
    return found


def _counted(spec: TaskSpec, held: dict[str, Any], split: str) -> str:
    if spec.is_generated:
        return "as many contexts as are asked for"
    return f"{held['contexts'][split]:,} contexts with {held['questions'][split]:,} questions"
