"""Trackers: what each client is told, what is missing is named before any work, and what fails costs no result."""

import logging
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from event_files import events, scalars

from sahub import optimize
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError, RunError
from sahub.results.reproduce import reproducing
from sahub.results.tracked import Tracked, params
from sahub.run.check import check_cell
from sahub.search.trial import Study, Trial

SMALL = [
    "compute=inline",
    "search.num_samples=2",
    "search.promote=1",
    "search.calibrate=0",
    "search.max_requests=2",
    "search.decide=1",
    "search.max_context_length=512",
    "search.max_new_tokens=4",
    "validate.max_requests=2",
    "validate.max_context_length=512",
    "validate.max_new_tokens=4",
]


class Told(list):
    """What a fake client was told, in order; from `until` calls on it fails."""

    until = 10**6

    def take(self, name: str) -> Any:
        def call(*given: Any, **named: Any) -> Any:
            if len(self) >= self.until:
                raise ConnectionError("the server\nis gone")
            self.append((name, given, named))
            return self.answer(name)

        return call

    def answer(self, name: str) -> Any:
        return SimpleNamespace(info=SimpleNamespace(run_id="run-7")) if name == "create_run" else "11"

    def of(self, name: str) -> list[tuple[tuple[Any, ...], dict[str, Any]]]:
        return [(given, named) for said, given, named in self if said == name]


@pytest.fixture
def mlflow(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A module with the part of MLflow's interface that is used."""
    told, module, entities = Told(), ModuleType("mlflow"), ModuleType("mlflow.entities")
    names = ("create_experiment", "create_run", "log_batch", "log_artifact", "set_terminated")
    client = SimpleNamespace(**{name: told.take(name) for name in names}, get_experiment_by_name=lambda name: None)
    module.MlflowClient = lambda tracking_uri: told.append(("uri", (tracking_uri,), {})) or client  # type: ignore[attr-defined]
    entities.Param = lambda key, value: (key, value)  # type: ignore[attr-defined]
    entities.Metric = lambda key, value, timestamp, step: (key, value, step)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "mlflow", module)
    monkeypatch.setitem(sys.modules, "mlflow.entities", entities)
    return told


@pytest.fixture
def wandb(monkeypatch: pytest.MonkeyPatch) -> Told:
    """A module with the part of W&B's interface that is used."""
    told, module = Told(), ModuleType("wandb")
    run = SimpleNamespace(**{name: told.take(name) for name in ("log", "log_artifact", "finish")})
    run.summary = SimpleNamespace(update=told.take("summary"))
    start = told.take("init")
    module.init = lambda **named: start(**named) and run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    return told


def a_run(name: str, folder: Path, *typed: str, broken: set[str] | None = None) -> Tracked:
    """A tracked cell that was told of two trials, of which one failed, a winner and a validation."""
    cell = compose_cell([f"tracker={name}", *typed], directory=folder / "cell")
    tracked = Tracked(cell, set() if broken is None else broken)
    tracked.start()
    measures = {"density": 0.09, "aux_bits": 16, "answer_kl": 0.25}
    first = Trial(number=0, state="complete", fidelity="teacher", overrides=(), value=0.5, measures=measures)
    tracked.trial(first)
    tracked.trial(Trial(number=1, state="failed", fidelity="teacher", overrides=()))
    best = folder / "cell" / "optimal_configs" / f"{cell.name}.json"
    best.parent.mkdir(parents=True, exist_ok=True)
    best.write_text('{"a": 1}')
    tracked.winner(Study(trials=(first,), best=first, default=first, seconds=1.0), best.parent)
    tracked.validation({"n": 4, "sparse_score": {"mean": 0.75, "low": None, "high": None}})
    tracked.close(True)
    return tracked


def test_by_default_nobody_is_told(tmp_path: Path):
    assert a_run("none", tmp_path).client is None
    assert compose_cell([]).settings.tracker.name == "none"


@pytest.mark.parametrize(
    ("name", "library"), [("mlflow", "mlflow"), ("wandb", "wandb"), ("tensorboard", "tensorboardX")]
)
def test_a_library_that_is_not_here_is_named_before_any_work(name: str, library: str, monkeypatch):
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"tracker={name}: {library} cannot be imported .*'sahub\[{name}\]'"):
        check_cell(compose_cell([f"tracker={name}"]))


def test_mlflow_gets_a_run_with_params_metrics_and_the_best_file(mlflow: Told, tmp_path: Path):
    a_run("mlflow", tmp_path, "tracker.uri=sqlite:///x.db", "tracker.project=mine")
    assert mlflow.of("uri") == [(("sqlite:///x.db",), {})]
    assert mlflow.of("create_experiment") == [(("mine",), {})]
    [(given, named)] = mlflow.of("create_run")
    assert (given, named) == (("11",), {"run_name": "embedded_ruler_niah_multikey_2_quest_sparsity_10"})
    batches = mlflow.of("log_batch")
    assert all(given == ("run-7",) for given, _ in batches)
    assert all(len(named.get("params", [])) <= 100 for _, named in batches)
    told = dict(pair for _, named in batches for pair in named.get("params", []))
    assert (told["builder"], told["search.num_samples"]) == ("quest", "50")
    assert told["builder.stages.quest.page_size"] == "16"
    metrics = [metric for _, named in batches for metric in named.get("metrics", [])]
    assert {("teacher/value", 0.5, 0), ("teacher/density", 0.09, 0), ("teacher/aux_bits", 16.0, 0)} <= set(metrics)
    assert {("best/value", 0.5, 0), ("trials/complete", 1.0, 0), ("validation/sparse_score/mean", 0.75, 0)} <= set(
        metrics
    )
    assert not [name for name, _, step in metrics if step == 1]
    [(given, _)] = mlflow.of("log_artifact")
    assert given[0] == "run-7"
    assert given[1].endswith("optimal_configs/embedded_ruler_niah_multikey_2_quest_sparsity_10.json")
    assert mlflow.of("set_terminated") == [(("run-7", "FINISHED"), {})]


def test_wandb_gets_a_run_with_params_metrics_and_the_best_file(wandb: Told, tmp_path: Path):
    a_run("wandb", tmp_path, "tracker.mode=offline", f"tracker.dir={tmp_path / 'w'}")
    [(_, started)] = wandb.of("init")
    assert (started["project"], started["mode"], started["reinit"]) == ("sahub", "offline", "create_new")
    assert started["name"] == "embedded_ruler_niah_multikey_2_quest_sparsity_10"
    assert Path(started["dir"]).is_dir()
    assert started["dir"].startswith(str(tmp_path / "w"))
    assert (started["config"]["search.num_samples"], started["config"]["task"]) == (50, "ruler/niah_multikey_2")
    [(given, named)] = wandb.of("log")
    assert given[0]["teacher/answer_kl"] == 0.25
    assert named == {"step": 0}
    summary = {name: number for given, _ in wandb.of("summary") for name, number in given[0].items()}
    assert (summary["best/value"], summary["validation/n"]) == (0.5, 4.0)
    [(given, named)] = wandb.of("log_artifact")
    assert named["type"] == "best"
    assert wandb.of("finish") == [((), {"exit_code": 0})]


def test_a_tracker_that_fails_is_named_once_and_left_alone(mlflow: Told, tmp_path: Path, caplog):
    mlflow.until = 7
    broken: set[str] = set()
    with caplog.at_level(logging.WARNING):
        a_run("mlflow", tmp_path, broken=broken)
        before = len(mlflow)
        a_run("mlflow", tmp_path, broken=broken)  # another cell of the same run
    assert [record.getMessage() for record in caplog.records] == [
        "tracker=mlflow: ConnectionError: the server; the run goes on without it"
    ]
    assert len(mlflow) == before


def test_params_are_choices_and_settings_and_trackers_are_no_part_of_a_result():
    cell = compose_cell(["tracker=tensorboard", "tracker.dir=x", "protocol.dense_layers=[0,1]"])
    found = params(cell)
    assert found["protocol.dense_layers"] == "[0,1]"
    assert found["objective"] == "sparsity_10"
    assert found["search.timeout_s"] == 900
    assert not [name for name in found if name.startswith(("tracker.", "doctor.", "bench."))]
    assert not [item for item in reproducing(cell) if "tracker" in item]


def test_a_search_writes_an_event_file_that_can_be_read(tmp_path: Path):
    found = optimize(overrides=["tracker=tensorboard", *SMALL], directory=tmp_path)
    told = scalars(tmp_path)
    cheap = [trial for trial in found.study.trials if trial.fidelity == "teacher"]
    assert told["teacher/value"] == [(trial.number, pytest.approx(trial.value)) for trial in cheap]
    assert told["teacher/density"] == [(trial.number, pytest.approx(trial.measures["density"])) for trial in cheap]
    assert {"teacher/aux_bits", "generate/benchmark_score", "trials/failed"} <= set(told)
    assert told["best/value"] == [(0, pytest.approx(found.study.best.value))]
    assert told["validation/sparse_score/mean"] == [(0, pytest.approx(found.figures["sparse_score"]["mean"]))]
    texts = {
        value.tag.partition("/")[0]: value.tensor.string_val[0].decode()
        for event in events(tmp_path)
        for value in event.summary.value
        if value.tensor.string_val
    }
    assert "| search.num_samples | 2 |" in texts["settings"]
    assert '"stage_overrides"' in texts["embedded_ruler_niah_multikey_2_quest_sparsity_10.json"]
    assert texts["status"] == "finished"


def test_a_tracker_that_fails_in_the_middle_of_a_search_loses_no_result(mlflow: Told, tmp_path: Path, caplog):
    mlflow.until = 5
    with caplog.at_level(logging.WARNING, logger="sahub.results.tracked"):
        found = optimize(overrides=["tracker=mlflow", *SMALL], directory=tmp_path)
    assert found.ok
    assert found.figures["n"] == 2
    assert list(tmp_path.rglob("optimal_configs/*_10.json"))
    assert caplog.text.count("the run goes on without it") == 1


def test_a_cell_that_fails_ends_its_run_as_failed(mlflow: Told, tmp_path: Path):
    with pytest.raises(RunError):
        optimize(overrides=["tracker=mlflow", *SMALL, "search.timeout_s=0.0001"], directory=tmp_path)
    assert mlflow.of("set_terminated") == [(("run-7", "FAILED"), {})]


def test_a_run_that_is_interrupted_is_not_left_open(mlflow: Told, tmp_path: Path, monkeypatch):
    def stop(*given: Any, **named: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("sahub.compute.worker.evaluate", stop)
    with pytest.raises(KeyboardInterrupt):
        optimize(overrides=["tracker=mlflow", *SMALL], directory=tmp_path)
    assert mlflow.of("set_terminated") == [(("run-7", "FAILED"), {})]
