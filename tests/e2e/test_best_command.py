"""`sahub best` as a process: what it prints and saves, and that it needs no torch and writes nothing by itself."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parents[2]

# Runs command lines one after the other in one process; the last line says what was imported.
LINES = """
import contextlib, io, json, sys
from sahub.cli import run
for arguments in json.loads(sys.argv[1]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        status = run("best", arguments)
    print(json.dumps([status, said.getvalue()]))
print(json.dumps(sorted({"torch", "ray", "transformers", "optuna"} & set(sys.modules))))
"""


def test_look_ups_need_no_torch_and_leave_nothing_behind(tmp_path: Path):
    from sahub import winners
    from sahub.config import compose_cell

    cell = compose_cell(["task=ruler/vt"])
    chosen = ["builder.stages.quest.page_size=8", "builder.stages.quest.label_bits=2"]
    commands = {command: f"python -m pipelines.{command} a=b" for command in ("search", "validate")}
    best = {"stage_overrides": chosen, "commands": commands, "figures": {"value": 0.25, "density": 0.09}}
    made = {"n": 10, "trials": {"complete": 40}, "versions": {"sahub": "0.1.0"}, "seed": 0}
    winners.keep(cell, {**asdict(cell.choices), **best, **made})
    work = tmp_path / "work"
    work.mkdir()
    lines = [
        ["task=ruler/vt"],
        ["task=ruler/vt", "save=mine/builder/vt_quest.yaml"],
        ["show=all"],
        ["task=ruler/vt", "--config-dir", "mine", "builder=vt_quest"],
        ["builder=qest"],
        ["search.num_samples=3"],
    ]
    done = subprocess.run(
        [sys.executable, "-c", LINES, json.dumps(lines[:3])],
        cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    (one, saved, every), imported = (
        map(json.loads, done.stdout.splitlines()[:3]),
        json.loads(done.stdout.splitlines()[3]),
    )
    assert imported == []
    assert one[0] == saved[0] == every[0] == 0
    assert "the winner of its search\n  builder.stages.quest.page_size=8\n" in one[1]
    assert "python -m pipelines.validate a=b" in one[1]
    assert "python -m pipelines.search --config-dir mine builder=vt_quest" in saved[1]
    assert "quest.page_size=8 quest.label_bits=2" in every[1]
    assert [str(file.relative_to(work)) for file in work.rglob("*") if file.is_file()] == ["mine/builder/vt_quest.yaml"]
    done = subprocess.run(
        [sys.executable, "-c", LINES, json.dumps(lines[3:])],
        cwd=work, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120, check=True,
    )  # fmt: skip
    default, unknown, unread = map(json.loads, done.stdout.splitlines()[:3])
    assert (default[0], unknown[0], unread[0]) == (0, 1, 1)
    assert "no winner in the cache: the builder's own values" in default[1]
    assert "builder=qest: no such builder; did you mean quest?" in unknown[1]
    assert "search.num_samples=3: `sahub best` does not read it" in unread[1]
