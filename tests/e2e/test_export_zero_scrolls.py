"""The leaderboard file of ZeroSCROLLS: every id of every task, from data without gold answers."""

import csv
from pathlib import Path

import pytest
from commands import TINY, one, read, sahub
from task_rows import contexts, rows_of, write_zip

from sahub.cli.commands.export_zero_scrolls import main

SMALL = ["compute=inline", "builder=dense", "validate.max_context_length=400", "validate.max_new_tokens=4"]


def test_every_id_of_both_splits_is_written(tmp_path: Path) -> None:
    for name in ("quality", "qasper"):
        rows = [
            row | {"output": None, "id": f"{name}/{number}"}
            for number, row in enumerate(rows_of(f"zero_scrolls/{name}"))
        ]
        write_zip(tmp_path / f"{name}.zip", {f"{name}/test.jsonl": rows, f"{name}/validation.jsonl": []})
    found = sahub(
        "export_zero_scrolls", "output=out.csv", "tasks=quality,qasper", f"task.path={tmp_path}", *SMALL, cwd=tmp_path
    )
    assert (found.returncode, found.stderr) == (0, "")
    with (tmp_path / "out.csv").open(newline="") as stream:
        rows = list(csv.DictReader(stream))
    assert list(rows[0]) == ["Task", "ID", "Prediction"]
    assert {(row["Task"], row["ID"]) for row in rows} == {
        (name, f"{name}/{number}") for name in ("quality", "qasper") for number in range(len(contexts()))
    }
    assert len(rows) == 2 * len(contexts())


def test_all_that_is_missing_is_told_at_once(tmp_path: Path, monkeypatch, capsys) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))
    output = f"output={tmp_path / 'out.csv'}"
    assert main([output, "tasks=quality,qasper", *SMALL]) == 1
    told = capsys.readouterr().err
    assert "--include 'quality.zip'" in told
    assert "--include 'qasper.zip'" in told
    assert not (tmp_path / "out.csv").exists()
    assert main([output, "tasks=nothing", *SMALL]) == 1
    assert capsys.readouterr().err.startswith("tasks=nothing: must be one of gov_report")
    assert main([output, "buidler=quest"]) == 1
    assert capsys.readouterr().err.startswith("buidler=quest: no such key; did you mean builder?")
    assert main([]) == 2


@pytest.mark.slow
def test_a_split_without_gold_can_be_searched_and_has_no_scores(tmp_path: Path) -> None:
    rows = [row | {"output": None} for row in rows_of("zero_scrolls/quality")]
    write_zip(tmp_path / "quality.zip", {"quality/test.jsonl": rows})
    asked = ["task=zero_scrolls/quality", f"task.path={tmp_path}", "task.split=test", "task.options.unscored=true"]
    done = sahub("search", *asked, "builder=streaming_llm", "compute=inline", *TINY, "search.decide=0", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    figures = read(one(tmp_path, "streaming_llm_sparsity_10/zero_scrolls_quality/metrics.json"))
    assert figures["measures"]["answer_kl"] > 0
    assert not {"dense_score", "sparse_score", "difference", "official"} & figures.keys()
