"""Weights & Biases."""

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from sahub.config.settings import Tracker

LIBRARY = "wandb"


class Client:
    """A run of Weights & Biases."""

    def __init__(self, settings: Tracker, name: str, folder: Path, params: Mapping[str, str | int | float]) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.run = import_module(LIBRARY).init(
            project=settings.project,
            name=name,
            group=folder.parent.name,
            dir=str(folder),
            mode=settings.mode,
            config=dict(params),
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
