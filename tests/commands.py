"""The command line as a person uses it: in a process of its own, in another directory."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import warm

ROOT = Path(__file__).parents[1]
PLUGINS = Path(__file__).parent / "plugins"
TINY = [
    "search.num_samples=4",
    "search.batch=2",
    "search.promote=1",
    "search.calibrate=1",
    "search.max_requests=3",
    "search.decide=2",
    "search.max_context_length=512",
    "search.max_new_tokens=8",
    "validate.max_requests=4",
    "validate.max_context_length=512",
    "validate.max_new_tokens=8",
]


# A command, as `python -m pipelines.<command>` runs it.
RUN = "import runpy; runpy.run_module('pipelines.{}', run_name='__main__', alter_sys=True)"


def environment(*paths: Path, **variables: str) -> dict[str, str]:
    """This process's, one thread, with more folders to import from."""
    found = [str(path) for path in (*paths, ROOT)]
    return {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(found), "COLUMNS": "200", **variables}


def start(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.Popen:
    """`python -m pipelines.<command> ...`, running, a process group of its own."""
    command, *rest = arguments
    return subprocess.Popen(
        [sys.executable, "-m", f"pipelines.{command}", *rest],
        cwd=cwd, env=env or environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip


def sahub(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """The same, once it ended; without the seconds of imports where it needs no Ray."""
    usual = environment()
    own = {key for key in {*usual, *(env or {})} if env is not None and env.get(key) != usual.get(key)}
    alone = "compute=inline" in arguments or arguments[0] in ("bench", "doctor", "train_hash")
    if alone and own <= {"XDG_CACHE_HOME", "PYTHONPATH"}:
        command, *rest = arguments
        return forked(RUN.format(command), *rest, cwd=cwd, env=env)
    with start(*arguments, cwd=cwd, env=env) as running:
        out, err = running.communicate(timeout=500)
    return subprocess.CompletedProcess(running.args, running.returncode, out, err)


def python(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """`python ...`, such as -c and some code, once it ended."""
    return subprocess.run(
        [sys.executable, *arguments],
        cwd=cwd, env=env or environment(), capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip


def forked(code: str, *arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess:
    """`python -c CODE ...`, once it ended, without the seconds of imports."""
    return warm.python(code, list(arguments), cwd=cwd, env=env or environment(), root=ROOT)


# What `many` runs; the last line says what was imported.
MANY = """
import contextlib, io, json, sys
from sahub.cli.main import run
for arguments in json.loads(sys.argv[2]):
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        try:
            status = run(sys.argv[1], arguments)
        except SystemExit as end:
            status = end.code
    print(json.dumps([status, said.getvalue()]))
print(json.dumps(sorted({"torch", "ray", "transformers", "optuna"} & set(sys.modules))))
"""


def many(command: str, lines: Sequence[Sequence[str]], cwd: Path) -> tuple[list[tuple[int, str]], list[str]]:
    """Command lines in one process, to import things once: exit status and output of each; big libraries imported."""
    done = python("-c", MANY, command, json.dumps(lines), cwd=cwd)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    *endings, imported = map(json.loads, done.stdout.splitlines())
    return endings, imported


def one(root: Path, pattern: str) -> Path:
    """The only file of a name below a folder."""
    [found] = root.rglob(pattern)
    return found


def read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def installed(site: Path, package: str, entry_points: str) -> None:
    """Leave in a folder to import from what pip leaves of a package, its modules apart."""
    info = site / f"{package}-1.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: 1\n", encoding="utf-8")
    (info / "entry_points.txt").write_text(entry_points, encoding="utf-8")


def with_plugin(folder: Path) -> Path:
    """A folder to import from, in which the methods of tests/plugins are installed: module and entry points."""
    site = folder / "site"
    installed(site, "nasty_methods", "[sahub.methods]\nnasty = nasty_methods:Nasty\n")
    shutil.copy(PLUGINS / "nasty_methods.py", site)
    return site


def builder(folder: Path, name: str, text: str) -> str:
    """The option that brings a builder of one's own."""
    file = folder / "conf" / "builder" / f"{name}.yaml"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, encoding="utf-8")
    return f"--config-dir={folder / 'conf'}"


def wait_for(condition: Any, seconds: float) -> bool:
    """Whether something became true in time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.1)
    return bool(condition())
