"""What can be used for what, before anybody searches: checks that end in facts, a verdict and an exit status."""

import logging
import sys
import traceback
from collections.abc import Sequence
from typing import Any

from sahub.config.cell import Cell
from sahub.config.choices import names_task
from sahub.doctor.questions import asked_of, check_data
from sahub.doctor.report import Report, show
from sahub.errors import SahubError
from sahub.extensions import all_of
from sahub.files.atomic import write_json, write_text
from sahub.models.weights import check_files

log = logging.getLogger(__name__)


def examine(cell: Cell) -> bool:
    """Run the checks of the task that was typed, else of the model; whether it can be used.

    Prints what they found and writes it to `doctor.json` in the cell's directory.

    Raises SahubError where there is nothing to examine: a wrong value, files that are not here.
    """
    kind = "task" if names_task(cell.overrides) else "model"
    model = f"model {cell.choices.model}"
    report = Report(subject=f"task {cell.choices.task} with {model}" if kind == "task" else model)
    file, doctor = cell.directory / "doctor.json", cell.settings.doctor
    try:
        if kind == "task":
            check_data(cell)
        else:
            check_files(cell, *asked_of(cell))
        from sahub.results import cell_files  # these import torch: only once everything cheap is right
        from sahub.run.check import check_cell  # these import torch: only once everything cheap is right

        if kind == "model":
            check_cell(cell)
        if cell.settings.dry_run:
            asked = f"asked {_list(doctor.tasks)} at {_list(doctor.lengths)} tokens" if kind == "model" else "examined"
            sys.stdout.write(f"{report.subject}: {asked}\n")
            return True
    except SahubError as error:
        report.problems.append(str(error))
        write_json(file, report.document())
        raise
    with cell.logged():
        for check in all_of("doctor/checks"):
            if kind == check.SUBJECT:
                _run(check, cell, report)
        report.facts["versions"] = cell_files.versions()
        write_json(file, report.document())
        log.info("subject=%s usable=%s %s", report.subject, report.usable, report.verdict)
    show(report, file)
    return report.usable


def _list(values: Sequence[object]) -> str:
    return ", ".join(map(str, values)) or "nothing"


def _run(check: Any, cell: Cell, report: Report) -> None:
    """One check; what it raises is what it found."""
    try:
        check.check(cell, report)
    except SahubError as error:
        report.problems.append(str(error))
    except Exception as error:  # noqa: BLE001  (a model of another family may raise anything)
        file = write_text(cell.directory / "error.txt", traceback.format_exc())
        first = (str(error).splitlines() or [""])[0]
        report.problems.append(f"{type(error).__name__}: {first} (traceback in {file})")
