"""What is told to a tracker of the person's choice: cells, trials and winners; by default to none.

A tracker is told what is also in files. Once it fails it is named and left alone: no result depends on it.
"""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sahub.config.cell import Cell
from sahub.config.ranges import leaves, shown
from sahub.extensions import member
from sahub.search.trial import Study, Trial

log = logging.getLogger(__name__)

UNTOLD = ("bench", "configs", "doctor", "save", "show", "tracker")  # settings that say nothing of a run


class Client(Protocol):
    """One run of a tracker, as its library's client makes it."""

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        """Numbers at a step, or of the run as a whole."""

    def file(self, path: Path) -> None:
        """A file that belongs to the run."""

    def close(self, ok: bool) -> None:
        """The run is over."""


@dataclass
class Tracked:
    """A cell's run in its tracker, opened when there is something to tell.

    broken  trackers that failed in this process, shared by all cells of a matrix
    """

    cell: Cell | None = None
    broken: set[str] = field(default_factory=set)
    client: Client | None = None

    def start(self) -> None:
        """Open the run with its choices and settings."""
        if self.cell is not None:
            self._tell(lambda client: None)

    def trial(self, trial: Trial) -> None:
        """Value and measures of a complete trial, by fidelity, at the trial's number."""
        if trial.value is not None:
            numbers = {"value": trial.value, **trial.measures}
            named = {f"{trial.fidelity}/{name}": float(number) for name, number in numbers.items()}
            self._tell(lambda client: client.numbers(named, trial.number))

    def winner(self, study: Study, folder: Path) -> None:
        """How many trials ended how, the winner's measures and its best file."""
        numbers = {f"trials/{state}": float(count) for state, count in study.counts().items()}
        if study.best is not None and study.best.value is not None:
            measures = {"value": study.best.value, **study.best.measures}
            numbers |= {f"best/{name}": float(number) for name, number in measures.items()}
        self._tell(lambda client: client.numbers(numbers, None))
        if study.best is not None and self.cell is not None:
            file = folder / f"{self.cell.name}.json"
            self._tell(lambda client: client.file(file))

    def validation(self, figures: Mapping[str, Any]) -> None:
        """What validation found: accuracies and differences with their intervals, measures."""
        numbers = {name: float(number) for name, number in leaves(figures) if isinstance(number, int | float)}
        named = {f"validation/{name.replace('.', '/')}": number for name, number in numbers.items()}
        self._tell(lambda client: client.numbers(named, None))

    def close(self, ok: bool) -> None:
        """End the run, if one was opened."""
        if self.client is not None:
            self._tell(lambda client: client.close(ok))
            self.client = None

    def _tell(self, tell: Callable[[Client], None]) -> None:
        """Open the run where it is not, and tell the client; a client may raise anything, and is then left alone."""
        name = self.cell.settings.tracker.name if self.cell is not None else "none"
        if self.cell is None or name == "none" or name in self.broken:
            return
        try:
            if self.client is None:
                self.client = _client(self.cell)
            tell(self.client)
        except Exception as error:  # noqa: BLE001
            self.broken.add(name)
            first = (str(error).splitlines() or [""])[0]
            log.warning("tracker=%s: %s: %s; the run goes on without it", name, type(error).__name__, first[:200])


def params(cell: Cell) -> dict[str, str | int | float]:
    """The cell's choices, and its settings by their keys; what is neither number nor text is written as it is typed."""
    settings = {name: value for name, value in asdict(cell.settings).items() if name not in UNTOLD}
    plain = (str, int, float)
    told = {name: value if isinstance(value, plain) else shown(value) for name, value in leaves(settings)}
    return {**asdict(cell.choices), **told}


def _client(cell: Cell) -> Client:
    """The client of the cell's tracker, its run begun."""
    made: Client = member("trackers", cell.settings.tracker.name).Client(
        cell.settings.tracker, cell.name, _folder(cell), params(cell)
    )
    return made


def _folder(cell: Cell) -> Path:
    """The cell's own directory, or one of its name in `tracker.dir`."""
    directory, below = cell.directory, cell.settings.tracker.dir
    return Path(below).expanduser() / directory.parent.name / directory.name if below else directory
