"""Data that are not on this machine: told in a few lines, at once, before anything large is imported."""

import sys

import pytest
from commands import TINY, many, read, sahub

TASKS = ("longbench/qasper", "zero_scrolls/quality", "infinite_bench/longbook_qa_eng")


def test_runs_without_data_say_what_to_do(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    for name in ("HF_HUB_CACHE", "HF_DATASETS_CACHE", "SAHUB_DOWNLOAD"):
        monkeypatch.setenv(name, "")
    endings, imported = many("search", [[f"task={task}"] for task in TASKS], tmp_path)
    assert imported == []
    for task, (status, said) in zip(TASKS, endings, strict=True):
        assert status == 1
        lines = said.splitlines()
        assert len(lines) <= 8
        assert lines[0].startswith(f"data of task {task} are not on this machine: dataset ")
        assert any("hf download --repo-type dataset" in line for line in lines)
        assert any("expected: DIR/" in line for line in lines)
        assert "Traceback" not in said


def test_broken_data_end_a_run_with_their_place(tmp_path) -> None:
    (tmp_path / "qasper.jsonl").write_text('{"context": "a", "question": "b", "answer_prefix": "c", "answers": NaN}\n')
    done = sahub("search", "task=longbench/qasper", f"task.path={tmp_path}", "compute=inline", cwd=tmp_path)
    said = done.stdout + done.stderr
    assert done.returncode == 1
    assert "qasper.jsonl:1: column answers is nan (float): must be a text" in said
    assert "Traceback" not in said
    assert sys.executable not in said


def test_cells_without_data_are_explained_beside_those_that_ran(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    tasks = "task=ruler/niah_single_1,longbench/qasper"
    small = [item for item in TINY if not item.startswith("search.max_requests")]
    done = sahub("search", "-m", tasks, "search.max_requests=2,0", "compute=inline", *small, cwd=tmp_path)
    assert done.returncode == 1
    [root] = (tmp_path / "multirun").iterdir()
    cells = {cell["task"]: cell for cell in read(root / "benchmark_summary.json")["cells"]}
    assert cells["ruler/niah_single_1"]["ok"]
    assert not cells["longbench/qasper"]["ok"]
    first, *_ = cells["longbench/qasper"]["message"].splitlines()
    assert first.startswith("data of task longbench/qasper are not on this machine")
    assert done.stderr.count(first) == 2  # before the work, and at the end
    for cell in root.iterdir():
        if cell.is_dir() and cell.name != "plots":
            said = (cell / "error.txt").read_text("utf-8") if (cell / "error.txt").exists() else ""
            good = "ruler" in cell.name and "max_requests=2" in cell.name
            assert said == "" if good else first in said or "search.max_requests=0" in said
