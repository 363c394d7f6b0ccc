"""What a newcomer copies from the documentation, in a fresh folder: files and commands as they stand there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from commands import ROOT, TINY, environment, one, read, sahub

FILE = re.compile(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)
SHELL = re.compile(r"^```bash\n(.*?)^```", re.DOTALL | re.MULTILINE)

START = "from sahub.cli.main import main; raise SystemExit(main())"


def shell(lines: str, cwd: Path) -> None:
    """Bash, in which `python` and `sahub` are those of this environment."""
    tools = cwd / ".tools"
    tools.mkdir(exist_ok=True)
    for name, call in {"python": "", "sahub": f"-c '{START}'"}.items():
        (tools / name).write_text(f'#!/bin/sh\nexec {sys.executable} {call} "$@"\n', "utf-8")
        (tools / name).chmod(0o755)
    env = environment(PATH=f"{tools}{os.pathsep}{os.environ['PATH']}")
    done = subprocess.run(["bash", "-ec", lines], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.mark.slow
def test_own_builder_on_own_data_in_six_commands(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "tutorials" / "your-data.md").read_text("utf-8")
    for name, content in FILE.findall(page):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    six, more = SHELL.findall(page)
    lines = six.splitlines()
    assert len(lines) <= 6
    assert lines[:2] == ["make setup", ". .venv/bin/activate"]  # this environment
    shell("\n".join(lines[2:]), tmp_path)
    shell(more, tmp_path / "notes")
    best = read(one(tmp_path / "notes", "optimal_configs/*pages_sparsity_10.json"))
    assert best["builder"] == "window_and_pages"
    assert best["validation"]["dense_score"]["mean"] > 0.8  # the model can do what is asked
    assert best["figures"]["density"] <= 0.1001
    assert "quest" in (tmp_path / "notes" / "conf" / "builder" / "tuned.yaml").read_text("utf-8")


@pytest.mark.slow
def test_the_examples_run(tmp_path: Path) -> None:
    for name, scope in {"per_task": "task", "one_for_all": "global"}.items():
        found = sahub(
            "search", "--config-dir", str(ROOT / "examples"), f"+experiment={name}", "results_dir=demo", *TINY,
            "compute=inline", cwd=tmp_path,
        )  # fmt: skip
        assert (found.returncode, found.stderr) == (0, "")
        newest = max(tmp_path.rglob("optimal_configs/*_sparsity_10.json"), key=os.path.getmtime)
        assert read(newest)["scope"] == scope
    found = sahub("report", "runs=demo", "output=demo/report.html", cwd=tmp_path)
    assert found.returncode == 0
    assert (tmp_path / "demo" / "report.html").stat().st_size > 1 << 20
    found = subprocess.run(
        [sys.executable, ROOT / "examples" / "optimize.py"], cwd=tmp_path, env=environment(), capture_output=True,
        text=True, check=False,
    )  # fmt: skip
    assert found.returncode == 0, found.stderr[-2000:]
    assert [line.split()[:2] for line in found.stdout.splitlines()[-4:]] == [
        [scope, task] for scope in ("task", "global") for task in ("ruler/niah_single_2", "ruler/niah_multikey_2")
    ]


def test_an_objective_of_ones_own_is_as_the_page_writes_it(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "method.md").read_text("utf-8")
    for kind in ("yaml", "python"):
        for name, content in re.findall(rf"^```{kind}\n# (mine/\S+)\n(.*?)^```", page, re.DOTALL | re.MULTILINE):
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / name).write_text(content, "utf-8")
    assert (tmp_path / "mine" / "my_objectives.py").is_file()
    assert (tmp_path / "mine" / "objective" / "few_bits.yaml").is_file()
    found = sahub(
        "search", "--config-dir", "mine", "objective=few_bits", "dry_run=true", "compute=inline", cwd=tmp_path
    )
    assert (found.returncode, found.stderr) == (0, "")
