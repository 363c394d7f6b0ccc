"""MLflow."""

import logging
import time
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path

from sahub.config.settings import Tracker

LIBRARY = "mlflow"


class Client:
    """A run of MLflow. Its client, not its global run: several cells are open at a time."""

    def __init__(self, settings: Tracker, name: str, folder: Path, params: Mapping[str, str | int | float]) -> None:
        del folder  # it writes where its server does
        mlflow = import_module(LIBRARY)
        logging.getLogger("mlflow").setLevel(logging.WARNING)  # a new database is no news
        self.entities = import_module("mlflow.entities")
        uri = settings.uri
        at = str(Path(uri).expanduser()) if uri and uri.startswith("~") else uri
        self.client = mlflow.MlflowClient(tracking_uri=at)
        found = self.client.get_experiment_by_name(settings.project)
        experiment = found.experiment_id if found else self.client.create_experiment(settings.project)
        self.run = self.client.create_run(experiment, run_name=name).info.run_id
        every = [self.entities.Param(name, str(value)[:6000]) for name, value in params.items()]
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
