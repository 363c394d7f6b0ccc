"""Files are whole or absent, and hold only what every reader can read."""

import csv
import json
import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sahub.errors import DataError, MissingFiles
from sahub.files.atomic import read_json, write_csv, write_json, write_jsonl, write_text

KILLED = """
import os, signal, sys
from pathlib import Path
from sahub.files.atomic import write_text
if sys.argv[2] == "replace":
    Path.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
else:
    os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)
write_text(sys.argv[1], "new")
"""


@pytest.mark.parametrize("moment", ["fsync", "replace"])
def test_a_kill_while_writing_leaves_the_old_file(tmp_path: Path, moment: str) -> None:
    file = write_text(tmp_path / "result.json", "old")
    died = subprocess.run([sys.executable, "-c", KILLED, str(file), moment], check=False, timeout=60)
    assert died.returncode == -signal.SIGKILL
    assert file.read_text() == "old"
    assert [path.name for path in tmp_path.glob("*.json")] == ["result.json"]


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write_text(tmp_path / "result.json", "old")

    def full(_: int) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space left"):
        write_text(file, "new")
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]
    assert file.read_text() == "old"


@pytest.mark.parametrize("number", [float("nan"), float("inf"), np.float32("nan")])
def test_what_is_not_a_number_is_refused_by_address(tmp_path: Path, number: Any) -> None:
    file = write_json(tmp_path / "result.json", {"old": True})
    with pytest.raises(DataError, match=r"result\.json\.trials\[1\]\.e=(nan|inf): must be a finite number"):
        write_json(file, {"trials": [{"e": 1.0}, {"e": number}]})
    with pytest.raises(DataError, match=r"x\.jsonl\[0\]\.e="):
        write_jsonl(tmp_path / "x.jsonl", [{"e": number}])
    with pytest.raises(DataError, match=r"x\.csv\[0\]\.e="):
        write_csv(tmp_path / "x.csv", [{"e": number}])
    assert read_json(file) == {"old": True}
    assert [path.name for path in tmp_path.iterdir()] == ["result.json"]


def test_json_is_sorted_exact_and_readable(tmp_path: Path) -> None:
    @dataclass(frozen=True)
    class Figure:
        score: float
        n: int

    value = {
        "b": Figure(0.1 + 0.2, 3),
        "a": (np.float64(0.5), np.int64(2), np.array([1, 2]), None, True),
        "path": tmp_path,
        "text": "ü\ud800\n",
        4: 1e-12,
    }
    file = write_json(tmp_path / "deep" / "er" / "x.json", value)
    text = file.read_text("utf-8")
    assert list(json.loads(text)) == ["4", "a", "b", "path", "text"]
    assert "ü" in text
    assert read_json(file) == {
        "b": {"score": 0.1 + 0.2, "n": 3},
        "a": [0.5, 2, [1, 2], None, True],
        "path": str(tmp_path),
        "text": "ü\ud800\n",
        "4": 1e-12,
    }


def test_the_same_value_gives_the_same_bytes(tmp_path: Path) -> None:
    one = write_json(tmp_path / "1.json", {"a": 1, "b": {"d": 0.1, "c": 2}}).read_bytes()
    assert write_json(tmp_path / "2.json", {"b": {"c": 2, "d": 0.1}, "a": 1}).read_bytes() == one


def test_jsonl_has_one_document_a_line(tmp_path: Path) -> None:
    rows = [{"text": "two\nlines"}, {"text": ""}]
    lines = write_jsonl(tmp_path / "x.jsonl", rows).read_text("utf-8").splitlines()
    assert [json.loads(line) for line in lines] == rows
    assert write_jsonl(tmp_path / "none.jsonl", []).read_text() == ""


def test_csv_keeps_text_columns_and_floats(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"id": 1, "answer": 'a\n"b", c', "score": 0.1},
        {"id": 2, "score": None, "references": ["x", "y"]},
    ]
    file = write_csv(tmp_path / "x.csv", rows, columns=["score"])
    with file.open(encoding="utf-8", newline="") as lines:
        found = list(csv.DictReader(lines))
    assert list(found[0]) == ["score", "id", "answer", "references"]
    assert found[0] == {"score": "0.1", "id": "1", "answer": 'a\n"b", c', "references": ""}
    assert found[1] == {"score": "", "id": "2", "answer": "", "references": '["x", "y"]'}


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFiles, match=r"nowhere\.json: no such file"):
        read_json(tmp_path / "nowhere.json")
    with pytest.raises(DataError, match=r"half\.json: not a JSON document"):
        read_json(write_text(tmp_path / "half.json", '{"a": '))
    with pytest.raises(DataError, match=r"x\.json\.a: a object cannot be written"):
        write_json(tmp_path / "x.json", {"a": object()})


def test_files_get_the_usual_permissions(tmp_path: Path) -> None:
    plain = tmp_path / "plain"
    plain.touch()
    assert write_text(tmp_path / "ours", "x").stat().st_mode == plain.stat().st_mode
