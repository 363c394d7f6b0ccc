"""docs/add-a-dataset.md, run as it stands there."""

import csv
import re
import shlex
import subprocess
import sys
from pathlib import Path

from commands import environment, installed, one, read

PAGE = Path(__file__).parents[2] / "docs" / "add-a-dataset.md"
FILE = re.compile(r"^`([\w./-]+)`\n\n```\w+\n(.*?)^```", re.DOTALL | re.MULTILINE)


def test_the_page_works(tmp_path: Path) -> None:
    text = PAGE.read_text("utf-8")
    files = dict(FILE.findall(text))
    assert list(files) == ["make_towns.py", "towns.py", "pyproject.toml", "conf/task/towns/mayors.yaml"]
    for name, content in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(content, "utf-8")
    group, line = re.search(r'entry-points\."([\w.]+)"\]\n(.*)\n', files["pyproject.toml"]).groups()  # type: ignore[union-attr]
    installed(tmp_path, "towns", f"[{group}]\n{line.replace(chr(34), '')}\n")

    [commands] = re.findall(r"^```sh\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    for command in commands.splitlines():
        arguments = [sys.executable if word == "python" else word for word in shlex.split(command)]
        done = subprocess.run(
            arguments, cwd=tmp_path, env=environment(tmp_path), capture_output=True, text=True, check=False
        )
        assert (done.returncode, done.stderr) == (0, "")
    with one(tmp_path, "dense/towns_mayors/raw_results.csv").open(newline="") as stream:
        answers = list(csv.DictReader(stream))
    assert len(answers) == 4
    assert all(answer["score"] in {"0.0", "1.0"} and int(answer["n_new"]) <= 16 for answer in answers)
    assert read(one(tmp_path, "dense/towns_mayors/config.json"))["settings"]["task"]["benchmark"] == "towns"


def test_bad_entry_points_are_named(tmp_path: Path) -> None:
    for name, content in {"broken": "import nothing_at_all\n", "scoreless": ""}.items():
        installed(tmp_path, name, f"[sahub.benchmarks]\n{name} = {name}\n")
        (tmp_path / f"{name}.py").write_text(content, "utf-8")
    code = """
from sahub.errors import ConfigError
from sahub.scores import metrics_of
for name in ("broken", "scoreless", "absent"):
    try:
        metrics_of(f"{name}/x")
    except ConfigError as error:
        print(error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(tmp_path), capture_output=True, text=True, check=True
    )
    first, second, third = done.stdout.splitlines()
    assert "its entry point broken cannot be loaded: ModuleNotFoundError" in first
    assert "its entry point scoreless must be a module with BENCHMARK" in second
    assert "benchmark must be one of" in third
    assert third.endswith("broken, scoreless")
