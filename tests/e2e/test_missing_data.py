"""Data that are not on this machine: told in a few lines, at once, before anything large is imported."""

import sys

import pytest
from commands import environment, sahub


@pytest.mark.parametrize("task", ["longbench/qasper", "zero_scrolls/quality", "infinite_bench/longbook_qa_eng"])
def test_a_run_without_data_says_what_to_do(task: str, tmp_path) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit('torch was imported')\n", "utf-8")
    env = environment(tmp_path, HF_HOME=str(tmp_path / "hf"), HF_HUB_CACHE="", HF_DATASETS_CACHE="", SAHUB_DOWNLOAD="")
    done = sahub("search", f"task={task}", cwd=tmp_path, env=env)
    assert done.returncode == 1
    lines = done.stderr.splitlines()
    assert len(lines) <= 8
    assert lines[0].startswith(f"data of task {task} are not on this machine: dataset ")
    assert any("hf download --repo-type dataset" in line for line in lines)
    assert any("expected: DIR/" in line for line in lines)
    assert "Traceback" not in done.stderr
    assert done.stdout == ""


def test_broken_data_end_a_run_with_their_place(tmp_path) -> None:
    (tmp_path / "qasper.jsonl").write_text('{"context": "a", "question": "b", "answer_prefix": "c", "answers": NaN}\n')
    done = sahub("search", "task=longbench/qasper", f"task.path={tmp_path}", "compute=inline", cwd=tmp_path)
    assert done.returncode == 1
    assert "qasper.jsonl:1: column answers is nan (float): must be a text" in done.stderr
    assert "Traceback" not in done.stderr
    assert sys.executable not in done.stderr
