"""TensorBoard, through tensorboardX, which needs no TensorFlow."""

from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from sahub.config.settings import Tracker

LIBRARY = "tensorboardX"


class Client:
    """A folder with an event file. It has no artifacts: the best file is a text."""

    def __init__(self, settings: Tracker, name: str, folder: Path, params: Mapping[str, str | int | float]) -> None:
        del settings, name
        self.writer = import_module(LIBRARY).SummaryWriter(logdir=str(folder / "tensorboard"))
        rows = "".join(f"| {name} | {value} |\n" for name, value in params.items())
        self.writer.add_text("settings", f"| key | value |\n|---|---|\n{rows}")

    def numbers(self, values: Mapping[str, float], step: int | None) -> None:
        for name, number in values.items():
            self.writer.add_scalar(name, number, step or 0)

    def file(self, path: Path) -> None:
        self.writer.add_text(path.name, f"```json\n{path.read_text(encoding='utf-8')}\n```")

    def close(self, ok: bool) -> None:
        self.writer.add_text("status", "finished" if ok else "failed")
        self.writer.close()
