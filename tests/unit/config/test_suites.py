"""Suites: one name for several tasks, in single runs and in sweeps."""

import pytest
from hydra.core.hydra_config import HydraConfig

from sahub.cli.main import Run, plan_cells, run
from sahub.config.cell import compose_cell
from sahub.config.choices import conf_dir, group_choices
from sahub.config.suites import expanded, members, suites_of, swept
from sahub.run.estimate import shortened

TASKS = ["longbench/qasper", "longbench/trec", "longbench_e/trec", "mine/4096", "ruler/cwe", "ruler/vt"]


def test_a_suite_is_all_tasks_of_a_benchmark() -> None:
    assert members("longbench/all", TASKS) == [["task=longbench/qasper"], ["task=longbench/trec"]]
    assert members("ruler/4096", TASKS) == [
        ["task=ruler/cwe", "task.length=4096"],
        ["task=ruler/vt", "task.length=4096"],
    ]


@pytest.mark.parametrize(
    "name", ["ruler/vt", "longbench/4096", "nothing/all", "mine/4096", "ruler/0512", "all", "ruler"]
)
def test_other_names_are_none(name: str) -> None:
    assert members(name, TASKS) is None


def test_a_job_becomes_one_per_task() -> None:
    assert expanded(["builder=quest", "task=longbench/all", "search.seed=1"], TASKS) == [
        ["builder=quest", "task=longbench/qasper", "search.seed=1"],
        ["builder=quest", "task=longbench/trec", "search.seed=1"],
    ]
    assert expanded(["task=ruler/vt"], TASKS) == [["task=ruler/vt"]]


def test_a_suite_alone_is_a_sweep() -> None:
    assert swept(["task=ruler/all", "builder=quest"], TASKS) == ["task=choice(ruler/all)", "builder=quest"]
    assert swept(["task=ruler/vt", "task.path=ruler/all"], TASKS) == ["task=ruler/vt", "task.path=ruler/all"]


def test_all_suites_are_listed() -> None:
    assert suites_of(TASKS) == ["longbench/all", "longbench_e/all", "mine/all", "ruler/all", "ruler/LENGTH"]


@pytest.fixture
def plan(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)

    def planned(*arguments: str) -> Run:
        found = Run()
        try:
            plan_cells(found, "search", list(arguments))
        finally:
            HydraConfig.instance().cfg = None
        return found

    return planned


def test_one_road_for_a_suite_with_or_without_m(plan) -> None:
    alone, listed = plan("task=loogle/all"), plan("-m", "task=loogle/all,longbench_v2/all,ruler/vt")
    names = [f"loogle/{name}" for name in ("longdep_qa", "longdep_summarization", "shortdep_cloze", "shortdep_qa")]
    assert [cell.choices.task for cell in alone.cells] == names
    assert [cell.choices.task for cell in listed.cells] == [*names, "longbench_v2/0shot", "ruler/vt"]
    assert not alone.problems
    assert {cell.directory.parent for cell in alone.cells} == {alone.directory}


def test_an_experiment_can_name_a_suite(plan, tmp_path) -> None:
    file = tmp_path / "conf" / "experiment" / "mine.yaml"
    file.parent.mkdir(parents=True)
    sweep = "hydra: {mode: MULTIRUN, sweeper: {params: {task: loogle/all}}}"
    file.write_text(f"# @package _global_\n# All of LooGLE.\n{sweep}\n")
    found = plan(f"--config-dir={tmp_path / 'conf'}", "+experiment=mine")
    assert [cell.settings.task.benchmark for cell in found.cells] == ["loogle"] * 4


def test_a_length_is_in_the_name_of_its_cells(plan) -> None:
    cells = plan("-m", "task=ruler/vt", "task.length=512,1024").cells
    assert [(cell.choices.task, cell.settings.task.length) for cell in cells] == [
        ("ruler/vt_512", 512),
        ("ruler/vt_1024", 1024),
    ]
    assert len({cell.directory for cell in cells}) == 2


def test_a_folder_of_ones_own_has_suites_too(plan, tmp_path, capsys) -> None:
    for name in ("one", "two"):
        file = tmp_path / "conf" / "task" / "own" / f"{name}.yaml"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"benchmark: own\nsubset: {name}\n")
    found = plan(f"--config-dir={tmp_path / 'conf'}", "task=own/all")
    assert [cell.choices.task for cell in found.cells] == ["own/one", "own/two"]
    assert run("search", ["task=loogle/al"]) == 1
    assert "loogle/shortdep_qa, loogle/all" in capsys.readouterr().err


def test_a_limit_below_the_length_of_a_suite_is_said_in_one_line() -> None:
    cells = [
        compose_cell([*job, "model.max_context_length=32768"])
        for job in expanded(["task=ruler/16384"], group_choices("task", [conf_dir()]))[:3]
    ]
    assert shortened(cells) == [
        "search: prompts of task.length=16384 have 8192 tokens, the limit of search.max_context_length, in 3 cells"
    ]
    limits = ["phases=[validate]", "model.max_context_length=1000"]
    assert shortened([compose_cell(["task=ruler/vt", "task.length=2048", *limits])]) == [
        "validate: prompts of task.length=2048 have 1000 tokens, the limit of model.max_context_length, in 1 cell"
    ]
    assert shortened([compose_cell(["task=ruler/vt"]), compose_cell(["task=ruler/vt", "task.length=1024"])]) == []


def test_no_arguments_at_all_ask_for_one_cell(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    planned = Run()
    plan_cells(planned, "search", [])
    assert [cell.name for cell in planned.cells] == ["embedded_ruler_niah_multikey_2_quest_sparsity_10"]
