"""One search for two tasks on the packaged model: one winner, pruned trials, files that give it again."""

import json

import optuna

from sahub.api import optimize_matrix
from sahub.config.cell import compose_cell
from sahub.run.matrix import run_matrix

TASKS = ["ruler/niah_multikey_2", "ruler/niah_single_1"]
SMALL = [
    "compute=inline", "compute.threads=1", "search.scope=global", "sampler=random", "scheduler=median",
    "search.num_samples=6", "search.batch=3", "search.promote=1", "search.calibrate=1", "search.max_requests=5",
    "search.decide=2", "search.max_context_length=400", "search.max_new_tokens=6", "validate.max_requests=2",
    "validate.max_context_length=400", "validate.max_new_tokens=6",
]  # fmt: skip


def test_one_search_for_two_tasks(tmp_path):
    found = optimize_matrix(
        models=["embedded"], tasks=TASKS, builders=["quest"], objectives=["sparsity_10"],
        overrides=SMALL, directory=tmp_path,
    )  # fmt: skip
    assert [result.message for result in found] == ["", ""]
    assert found[0].study.best.overrides == found[1].study.best.overrides
    assert found[0].study.counts() == found[1].study.counts()
    assert found[0].study.counts()["pruned"] > 0
    summary = json.loads((tmp_path / "benchmark_summary.json").read_text("utf-8"))
    assert summary["work"]["embedded"]["loads"] == 1
    assert all(row["validation"] for row in summary["cells"])
    for task, result in zip(TASKS, found, strict=True):
        folder, name = result.cell.directory / "optimal_configs", result.cell.name
        best = json.loads((folder / f"{name}.json").read_text("utf-8"))
        assert (best["task"], best["scope"], best["tasks"]) == (task, "global", TASKS)
        storage = f"sqlite:///{folder / f'{name}_study.db'}"
        study = optuna.load_study(study_name=f"{name}_teacher", storage=storage)
        assert study.trials[0].value == result.study.trials[0].tasks[TASKS[0]]["value"] / 2 + (
            result.study.trials[0].tasks[TASKS[1]]["value"] / 2
        )
    [again] = run_matrix([compose_cell([*best["overrides"], "phases=[search]"], directory=tmp_path / "again")])
    assert len([trial for trial in again.study.trials if trial.fidelity == "teacher"]) == 1
    pasted = json.loads((tmp_path / "again" / "optimal_configs" / f"{again.cell.name}.json").read_text("utf-8"))
    assert pasted["figures"] == best["figures"]
    assert pasted["tasks"] == [TASKS[1]]
