"""Predictions for a leaderboard that keeps its gold answers: every question of ZeroSCROLLS's test split, one file.

The file has the columns Task, ID, Prediction; a leaderboard wants all ten tasks with every id.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from sahub.compute import pool
from sahub.compute.worker import Batch, Work, Workers
from sahub.config.cell import Cell, compose_cell
from sahub.data.examples import SPLITS
from sahub.engine.session import Attention
from sahub.errors import ConfigError, RunError
from sahub.files.atomic import write_csv
from sahub.models.weights import check_files
from sahub.run.check import check_cell
from sahub.search import trial
from sahub.tasks.zero_scrolls import SUBSETS

COLUMNS = ("Task", "ID", "Prediction")
# No search is run, so both parts of the data are answered, within the limits of a validation.
EVERYTHING = (
    "task.options.unscored=true",
    "search.max_requests=1000000",
    "search.decide=0",
    "search.max_context_length=${validate.max_context_length}",
    "search.max_new_tokens=1000000",
)


def export(output: Path, overrides: Sequence[str], subsets: Sequence[str] = SUBSETS) -> int:
    """Answer every question of the subsets and write the file, whole or not at all; the number of its rows.

    `overrides` are those of `sahub validate`: model, builder, objective, task.path and task.split. Raises ConfigError
    for a subset that there is not, MissingFiles with everything that is not on this machine, RunError where a task
    could not be answered.
    """
    if unknown := sorted({*subsets} - {*SUBSETS}):
        raise ConfigError(f"tasks={unknown[0]}: must be one of {', '.join(SUBSETS)}")
    cells = [
        compose_cell([f"task=zero_scrolls/{name}", "task.split=test", *EVERYTHING, *overrides], command="validate")
        for name in subsets
    ]
    check_files(*cells)
    for cell in cells:
        check_cell(cell)
    rows: list[dict[str, Any]] = []
    with TemporaryDirectory() as folder, pool.ready(cells), pool.workers(cells[0], Path(folder)) as workers:
        for cell in cells:
            rows += workers.run(_answers(workers, cell))
    write_csv(output, rows, COLUMNS)
    return len(rows)


def _answers(workers: Workers, cell: Cell) -> Work[list[dict[str, Any]]]:
    dense = cell.choices.builder == "dense"
    plan = trial.plan_of(cell, cell.settings.validate, fidelity="generate")
    [outcome] = yield Batch(
        requests=list(_requests(workers, cell)),
        attentions=[Attention() if dense else trial.attention_of(cell, ())],
        plan=plan,
        max_concurrent=cell.settings.validate.max_concurrent,
    )
    if outcome.state != "complete":
        raise RunError(f"{cell.choices.task}: {outcome.state}: {outcome.reason}")
    task = cell.settings.task.subset
    return [{"Task": task, "ID": answer.question_id, "Prediction": answer.answer} for answer in outcome.answers]


def _requests(workers: Workers, cell: Cell) -> Iterator[Any]:
    for split in SPLITS:
        yield from workers.requests(cell, split)
