"""Cells, trials and winners in a tracker of the person's choice, through its library's own client; by default in none.

A tracker is told what is also in files. Once it fails it is named and left alone: no result depends on it.
"""

import logging
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from sahub.config.cell import Cell
from sahub.config.ranges import leaves, shown
from sahub.errors import ConfigError

if TYPE_CHECKING:
    from sahub.search.trial import Study, Trial

log = logging.getLogger(__name__)

LIBRARIES = {"mlflow": "mlflow", "tensorboard": "tensorboardX", "wandb": "wandb"}
UNTOLD = ("configs", "doctor", "save", "show", "tracker")  # settings that say nothing of a run


class Client(Protocol):
    """One run of a tracker, as its library's client makes it."""

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        """Numbers at a step, or of the run as a whole."""

    def file(self, path: Path) -> None:
        """A file that belongs to the run."""

    def close(self, ok: bool) -> None:
        """The run is over."""


def check(cell: Cell) -> None:
    """Raise ConfigError where the library of the chosen tracker is not installed."""
    name = cell.settings.tracker.name
    if name in LIBRARIES:
        try:
            import_module(LIBRARIES[name])
        except ImportError as error:
            raise ConfigError(
                f"tracker={name}: {LIBRARIES[name]} cannot be imported ({error}); pip install 'sahub[{name}]'"
            ) from None


@dataclass
class Tracked:
    """A cell's run in its tracker, opened when there is something to tell.

    broken  trackers that failed in this process, shared by all cells of a matrix
    """

    cell: Cell | None = None
    broken: set[str] = field(default_factory=set)
    client: Client | None = None

    def start(self) -> None:
        """Open the run with its nouns and settings. Raises ConfigError where the library is not installed."""
        if self.cell is not None:
            check(self.cell)
            self._tell(lambda client: None)

    def trial(self, trial: "Trial") -> None:
        """Value and measures of a complete trial, by fidelity, at the trial's number."""
        if trial.value is not None:
            numbers = {"value": trial.value, **trial.measures}
            named = {f"{trial.fidelity}/{name}": float(number) for name, number in numbers.items()}
            self._tell(lambda client: client.numbers(named, trial.number))

    def winner(self, study: "Study", folder: Path) -> None:
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
        if self.cell is None or name not in LIBRARIES or name in self.broken:
            return
        try:
            if self.client is None:
                self.client = CLIENTS[name](self.cell)
            tell(self.client)
        except Exception as error:  # noqa: BLE001
            self.broken.add(name)
            first = (str(error).splitlines() or [""])[0]
            log.warning("tracker=%s: %s: %s; the run goes on without it", name, type(error).__name__, first[:200])


class MLflow:
    """A run of MLflow. Its client, not its global run: several cells are open at a time."""

    def __init__(self, cell: Cell) -> None:
        mlflow, settings = import_module("mlflow"), cell.settings.tracker
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new database is no news
        self.entities = import_module("mlflow.entities")
        self.client = mlflow.MlflowClient(tracking_uri=settings.uri)
        found = self.client.get_experiment_by_name(settings.project)
        experiment = found.experiment_id if found else self.client.create_experiment(settings.project)
        self.run = self.client.create_run(experiment, run_name=cell.name).info.run_id
        every = [self.entities.Param(name, str(value)[:6000]) for name, value in params(cell).items()]
        for start in range(0, len(every), 100):  # as many as MLflow takes at once
            self.client.log_batch(self.run, params=every[start : start + 100])

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        now = int(time.time() * 1000)
        metrics = [self.entities.Metric(name, number, now, step or 0) for name, number in values.items()]
        self.client.log_batch(self.run, metrics=metrics)

    def file(self, path: Path) -> None:
        self.client.log_artifact(self.run, str(path))

    def close(self, ok: bool) -> None:
        self.client.set_terminated(self.run, "FINISHED" if ok else "FAILED")


class TensorBoard:
    """A folder with an event file. It has no artifacts: the best file is a text."""

    def __init__(self, cell: Cell) -> None:
        self.writer = import_module("tensorboardX").SummaryWriter(logdir=str(_folder(cell) / "tensorboard"))
        rows = "".join(f"| {name} | {value} |\n" for name, value in params(cell).items())
        self.writer.add_text("settings", f"| key | value |\n|---|---|\n{rows}")

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        for name, number in values.items():
            self.writer.add_scalar(name, number, step or 0)

    def file(self, path: Path) -> None:
        self.writer.add_text(path.name, f"```json\n{path.read_text(encoding='utf-8')}\n```")

    def close(self, ok: bool) -> None:
        self.writer.add_text("status", "finished" if ok else "failed")
        self.writer.close()


class WandB:
    """A run of Weights & Biases."""

    def __init__(self, cell: Cell) -> None:
        settings, folder = cell.settings.tracker, _folder(cell)
        folder.mkdir(parents=True, exist_ok=True)
        self.run = import_module("wandb").init(
            project=settings.project,
            name=cell.name,
            group=cell.directory.parent.name,
            dir=str(folder),
            mode=settings.mode,
            config=params(cell),
            reinit="create_new",  # several cells are open at a time
            settings={"silent": True, "console": "off"},
        )

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        if step is None:
            self.run.summary.update(dict(values))
        else:
            self.run.log(dict(values), step=step)

    def file(self, path: Path) -> None:
        self.run.log_artifact(str(path), name=re.sub(r"[^\w.-]", "_", path.stem)[:120], type="best")

    def close(self, ok: bool) -> None:
        self.run.finish(exit_code=0 if ok else 1)


CLIENTS: dict[str, Callable[[Cell], Client]] = {"mlflow": MLflow, "tensorboard": TensorBoard, "wandb": WandB}


def params(cell: Cell) -> dict[str, str | int | float]:
    """The cell's nouns, and its settings by their keys; what is neither number nor text is written as it is typed."""
    settings = {name: value for name, value in asdict(cell.settings).items() if name not in UNTOLD}
    plain = (str, int, float)
    told = {name: value if isinstance(value, plain) else shown(value) for name, value in leaves(settings)}
    return {**asdict(cell.choices), **told}


def _folder(cell: Cell) -> Path:
    """The cell's own directory, or one of its name in `tracker.dir`."""
    directory, below = cell.directory, cell.settings.tracker.dir
    return Path(below).expanduser() / directory.parent.name / directory.name if below else directory
