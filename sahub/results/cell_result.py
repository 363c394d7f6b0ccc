"""How the cells of a run end: with results, or with the reason why not, each by itself."""

import logging
import traceback
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from sahub.config.cell import Cell
from sahub.errors import SahubError, disk_trouble
from sahub.files.atomic import ERROR_FILE, write_text
from sahub.results.tracked import Tracked
from sahub.results.validate import Validation
from sahub.search.trial import Study
from sahub.timing.costs import StepCosts

log = logging.getLogger(__name__)


@dataclass
class CellResult:
    """How a cell ended: `ok`, or a message that says why not."""

    cell: Cell
    tracked: Tracked = field(default_factory=Tracked)
    ok: bool = True
    message: str = ""
    study: Study | None = None
    costs: StepCosts | None = None  # that predicted its trials' steps, where the objective reads them
    validation: Validation | None = None
    figures: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    computed: int = 0  # contexts x stacks, those of a validation by all cells that share it
    served: int = 0  # the same, from the cache

    @property
    def finished(self) -> bool:
        """Whether everything that was asked for is there: nothing that happens later takes it away."""
        phases = self.cell.settings.phases
        return ("search" not in phases or self.study is not None) and ("validate" not in phases or bool(self.figures))


@contextmanager
def guard(group: Sequence[CellResult]) -> Iterator[None]:
    """What goes wrong inside is these cells' failure, and nobody else's."""
    try:
        yield
    except SahubError as error:
        fail(group, str(error))
    except Exception as error:  # noqa: BLE001
        where, said = group[0].cell.directory / ERROR_FILE, " ".join(str(error).split())[:300]
        unexpected = f"{type(error).__name__}: {said} (traceback in {where})"
        fail(group, disk_trouble(error) or unexpected, traceback.format_exc())


def fail(group: Sequence[CellResult], message: str, details: str = "") -> None:
    """Say of every cell that is not finished that it failed, and why."""
    for result in group:
        if not result.finished:
            log.info("cell=%s failed: %s", result.cell.name, message)
            result.ok, result.message = False, message
            explain(result, details)


def explain(result: CellResult, details: str = "") -> None:
    """Why a cell failed, in its own directory."""
    with suppress(OSError):  # a full disk may be what it failed of; the message is shown in any case
        write_text(result.cell.directory / ERROR_FILE, "\n".join([result.message, *filter(None, [details])]) + "\n")


def why_no_winner(result: CellResult) -> str:
    """What the complete trials of a cell lack."""
    study = result.study
    assert study is not None
    objective, complete = result.cell.settings.objective, study.counts()["complete"]
    asked = {"density": objective.density, "aux_bits": objective.aux_bits}
    lowest = {name: min(trial.measures[name] for trial in study.trials if trial.state == "complete") for name in asked}
    targets = [
        f"{name} {bound:g} (lowest measured {lowest[name]:.4g})" for name, bound in asked.items() if bound is not None
    ]
    if objective.loss is not None:
        over = min(trial.excess.get("loss", 0.0) for trial in study.trials if trial.state == "complete")
        targets.append(f"loss {objective.loss} {objective.largest_loss:g} (the closest {over:.4g} above)")
    where = " on every task" if any(trial.tasks for trial in study.trials) else ""
    return f"none of {complete} complete trials meets its targets{where}: {', '.join(targets)}"


def failures(found: Sequence[CellResult]) -> dict[str, str]:
    """What went wrong, and in which cells: message -> names."""
    names: dict[str, list[str]] = {}
    for result in found:
        if not result.ok:
            names.setdefault(result.message, []).append(result.cell.directory.name)
    if len(found) == 1:
        return dict.fromkeys(names, "failed")
    return {
        said: f"{one} and {len(more)} more" if len(more) > 1 else ", ".join([one, *more])
        for said, (one, *more) in names.items()
    }
