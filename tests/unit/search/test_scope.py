"""One search for several tasks, and the file that optuna-dashboard opens."""

import json
from dataclasses import replace

import optuna
import pytest
from arithmetic import GEOMETRY, PINNED, SMALL, Arithmetic, figures, kl, requests, run

from sahub.compute.worker import drive
from sahub.config.cell import compose_cell
from sahub.errors import RunError
from sahub.results.cell_files import write_study
from sahub.search.scope import Part, search_key, seen_from
from sahub.search.search import Search

ONE, TWO = "ruler/niah_multikey_2", "ruler/niah_single_1"


def other_best(quest, text):
    """On texts of o, small pages are better, and bits do not matter."""
    return kl(quest, text) if text.startswith("x") else quest.page_size / 32


def both(*overrides, work=None):
    """A study of two tasks: contexts of x, and contexts of o."""
    one, two = (
        compose_cell([*SMALL, *PINNED, "search.scope=global", f"task={task}", *overrides]) for task in (ONE, TWO)
    )
    search = Search([Part(one, requests(4, "x")), Part(two, requests(3, "o"))], GEOMETRY)
    return drive(search.work(), work or Arithmetic(kl=other_best)), one, two


def test_the_winner_is_the_best_on_the_mean_over_tasks():
    study, *_ = both("search.num_samples=30")
    assert len(study.trials) == 24
    for trial in study.trials:
        first, second = (trial.tasks[task] for task in (ONE, TWO))
        assert trial.value == pytest.approx((first["value"] + second["value"]) / 2)
        assert trial.measures["answer_kl"] == pytest.approx((first["answer_kl"] + second["answer_kl"]) / 2)
        assert trial.contexts == 7
    assert study.best.value == min(trial.value for trial in study.trials if trial.feasible)
    alone = run(*PINNED, "search.num_samples=30")
    assert study.best.overrides != alone.best.overrides


def test_a_task_sees_its_own_figures_and_the_common_winner():
    study, *_ = both("search.num_samples=30")
    seen = seen_from(study, TWO)
    assert seen.best.overrides == study.best.overrides
    assert seen.best.value == study.best.tasks[TWO]["value"]
    assert seen.best.measures["answer_kl"] == study.best.tasks[TWO]["answer_kl"]
    assert seen.counts() == study.counts()


def test_feasible_means_in_each_task():
    def dense_on_o(quest, text):
        return 0.05 if text.startswith("x") or quest.page_size == 4 else 0.5

    study, *_ = both("search.num_samples=30", work=Arithmetic(kl=other_best, density=dense_on_o))
    pages = {trial.overrides[0].rpartition("=")[2] for trial in study.trials if trial.feasible}
    assert pages == {"4"}
    assert any(trial.tasks[ONE]["feasible"] and not trial.feasible for trial in study.trials)


def test_a_failure_on_one_task_fails_the_trial_by_name_and_is_not_run_on_the_others():
    work = Arithmetic(broken=lambda quest, text: quest.page_size == 8 and text.startswith("x"))
    study, *_ = both("search.num_samples=30", work=work)
    failed = [trial for trial in study.trials if trial.state == "failed"]
    assert len(failed) == 4
    assert {trial.reason for trial in failed} == {f"task {ONE}: broken on x"}
    assert sum(stacks for stacks, contexts in work.asked if contexts == 3) == 20
    with pytest.raises(RunError, match=rf"none of 12 trials completed, 12 failed; the first: task {TWO}: broken on o"):
        both(work=Arithmetic(broken=lambda quest, text: text == "o"))


def test_schedulers_prune_on_the_mean_too():
    study, *_ = both("scheduler=median", "search.num_samples=30")
    assert study.counts()["pruned"] > 0
    assert figures(study) == figures(both("scheduler=median", "search.num_samples=30")[0])


def test_promotion_generates_on_every_task():
    study, *_ = both("search.promote=2", "search.num_samples=8")
    assert study.generated.fidelity == "generate"
    assert set(study.generated.tasks) == {ONE, TWO}
    assert all("benchmark_score" in there for there in study.generated.tasks.values())


def test_cells_share_a_search_only_where_their_task_alone_differs():
    def key(*overrides):
        return search_key(compose_cell(["search.scope=global", *overrides]))

    assert key(f"task={ONE}") == key(f"task={TWO}")
    assert key(f"task={ONE}") != key(f"task={TWO}", "objective=sparsity_5")
    assert key(f"task={ONE}") != key(f"task={TWO}", "builder.stages.quest.page_size=8")
    assert key(f"task={ONE}") != key(f"task={TWO}", "validate.max_context_length=2048")
    assert key(f"task={ONE}") != key(f"task={TWO}", "task.options.num_examples=5")
    cells = [compose_cell([f"task={ONE}"]) for _ in range(2)]
    assert search_key(cells[0]) != search_key(cells[1])


def test_the_files_of_a_global_study(tmp_path):
    study, _, two = both("search.num_samples=30")
    two = replace(two, directory=tmp_path)
    folder = write_study(two, study, requests(3, "o"), [])
    best = json.loads((folder / f"{two.name}.json").read_text("utf-8"))
    assert best["scope"] == "global"
    assert best["tasks"] == [ONE, TWO]
    assert best["mean_figures"]["value"] == study.best.value
    assert best["figures"]["value"] == study.best.tasks[TWO]["value"]
    rows = json.loads((folder / f"{two.name}_trials.json").read_text("utf-8"))
    assert all(set(row["tasks"]) == {ONE, TWO} for row in rows)
    assert rows[3]["mean_value"] == pytest.approx(study.trials[3].value)
    assert rows[3]["value"] == study.trials[3].tasks[TWO]["value"]


# The export for optuna-dashboard


def test_the_exported_study_opens_in_optuna_with_every_trial(tmp_path):
    work = Arithmetic(
        broken=lambda quest, text: quest.page_size == 128,
    )
    overrides = ["scheduler=median", "search.promote=1", "search.num_samples=30", "builder.limits.aux_bits=100"]
    study = run(*PINNED, *overrides, work=work)
    cell = replace(compose_cell([*SMALL, *PINNED, *overrides]), directory=tmp_path)
    folder = write_study(cell, study, requests(), [])
    assert {file.name.removeprefix(cell.name) for file in folder.iterdir()} == {
        ".json", "_trials.json", "_analysis.csv", "_study.db"
    }  # fmt: skip
    storage = f"sqlite:///{folder / f'{cell.name}_study.db'}"
    assert optuna.get_all_study_names(storage) == [f"{cell.name}_teacher", f"{cell.name}_generate"]
    found = optuna.load_study(study_name=f"{cell.name}_teacher", storage=storage)
    ours = [trial for trial in study.trials if trial.fidelity == "teacher"]
    assert len(found.trials) == len(ours)
    states = {"complete": "COMPLETE", "pruned": "PRUNED", "rejected": "PRUNED", "failed": "FAIL"}
    assert {trial.state for trial in ours} == set(states)
    for theirs, trial in zip(found.trials, ours, strict=True):
        assert theirs.state.name == states[trial.state]
        assert theirs.user_attrs["state"] == trial.state
        assert theirs.user_attrs["overrides"] == " ".join(trial.overrides)
        assert theirs.params == dict(trial.point)
        if trial.state == "complete":
            assert theirs.value == trial.value
            assert theirs.user_attrs["density"] == trial.measures["density"]
            assert theirs.user_attrs["aux_bits"] == trial.measures["aux_bits"]
            assert theirs.user_attrs["feasible"] == trial.feasible
            assert (theirs.constraints["density"] <= 0) == trial.feasible
    assert not list(folder.glob(".draft*"))


def test_defaults_outside_of_the_space_are_exported(tmp_path):
    values = ["builder.stages.quest.density=0.9", "builder.stages.quest.page_size=7", "search.pin=false"]
    study = run("objective=default", *values, "search.num_samples=5")
    cell = replace(compose_cell([*SMALL, "objective=default", *values]), directory=tmp_path)
    file = write_study(cell, study, requests(), []) / f"{cell.name}_study.db"
    default = optuna.load_study(study_name=f"{cell.name}_teacher", storage=f"sqlite:///{file}").trials[0]
    assert default.params["quest.density"] == 0.9
    assert "quest.page_size" not in default.params  # no choice of the space
    assert "builder.stages.quest.page_size=7" in default.user_attrs["overrides"]
