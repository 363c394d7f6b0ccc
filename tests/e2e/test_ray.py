"""Searches on Ray: the same files with any number of workers, and nothing left behind after any end."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from tempfile import gettempdir

import pytest
from commands import RUN, TINY, builder, environment, forked, one, read, sahub, start, wait_for, with_plugin
from event_files import scalars
from processes import belonging_to
from timeless import timeless

from sahub import optimize
from sahub.files.package import ROOT

NOISE = ("ray::", "Token", "raylet", "Trial", "Tune", "INFO", "ray.init", "Warning")


def left(folder: Path) -> list[int]:
    """Processes that still belong to a run that was started in a folder: its cache is in their environment."""
    return list(belonging_to(folder / "cache"))


def own(folder: Path, *paths: Path, **variables: str) -> dict[str, str]:
    return environment(*paths, XDG_CACHE_HOME=str(folder / "cache"), **variables)


def test_one_worker_gives_the_files_of_none_and_leaves_nothing(tmp_path):
    """The quick variant of the one below: one search, without validation."""
    small = [*TINY, "search.promote=0", "search.calibrate=0", "phases=[search]"]
    home, folder, inline = (tmp_path / name for name in ("home", "local", "inline"))
    home.mkdir()
    folder.mkdir()
    env = own(folder, HOME=str(home), RAY_ADDRESS="127.0.0.1:1")
    done = sahub("search", "builder=streaming_llm", "compute=local", *small, cwd=folder, env=env)
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    assert not [word for word in NOISE if word in done.stdout]
    assert "model loads 1," in done.stdout
    assert not left(folder)
    assert {entry.name for entry in folder.iterdir()} == {"outputs", "cache"}
    assert not [entry for entry in home.iterdir() if entry.name not in {".cache", ".config"}]
    optimize(builder="streaming_llm", overrides=["compute=inline", *small], directory=inline)
    [cell] = inline.glob("embedded_*")
    summary = {"benchmark_summary.json": timeless(inline)["benchmark_summary.json"]}
    assert timeless(next((folder / "outputs").iterdir())) == timeless(cell) | summary


@pytest.mark.slow
def test_the_number_of_workers_changes_no_byte(tmp_path):
    runs = {}
    for name, compute in {
        "inline": ["compute=inline"],
        "one": ["compute=local"],
        "two": ["compute=local", "compute.workers=2"],
        "one at a time": ["compute=local", "compute.workers=2", "search.max_concurrent=1", "validate.max_concurrent=1"],
    }.items():
        folder = tmp_path / name
        folder.mkdir()
        done = sahub(
            "search", "-m", "builder=quest,streaming_llm", *compute, *TINY, "search.num_samples=6", "search.batch=3",
            cwd=folder, env=own(folder),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        [root] = (folder / "multirun").iterdir()
        runs[name] = timeless(root)
        work = read(root / "benchmark_summary.json")["work"]["embedded"]
        assert work["loads"] == (2 if name.startswith(("two", "one at")) else 1)
        if name == "one at a time":
            assert work["prefills"] == work["contexts"] == 3 + 2 + 4  # one worker saw them all
    limits = [key for key in runs["inline"] if key.endswith("config.json")]
    for name in ("one", "two"):
        assert runs[name] == runs["inline"]
    for key in runs["inline"].keys() - {*limits}:
        assert runs["one at a time"][key] == runs["inline"][key]


@pytest.mark.slow
def test_what_is_said_of_a_model_by_its_workers_is_seen_once(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "embedded", model)
    turn = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}[assistant] <|deep_thought|>"
    (model / "chat_template.jinja").write_text(turn)
    typed = [f"model.path={model}", "builder=streaming_llm", "compute=local", "compute.workers=2", *TINY]
    done = sahub("search", *typed, cwd=tmp_path, env=own(tmp_path))
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("its template opens a thought (<|deep_thought|>)") == 1


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["dynamic", "longrope"])
def test_frequencies_that_follow_the_length_are_those_of_each_context_on_any_worker(tmp_path, kind):
    """Contexts on both sides of the switch: no figure depends on what a worker read before."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "embedded", model)
    config = json.loads((model / "config.json").read_text())
    rope = {"rope_type": kind, "rope_theta": config["rope_parameters"]["rope_theta"], "factor": 2.0}
    factors = {"short_factor": [1.0] * 16, "long_factor": [1.2] * 16, "original_max_position_embeddings": 600}
    config["rope_parameters"] = rope | (factors if kind == "longrope" else {})
    config |= {"max_position_embeddings": 600 if kind == "dynamic" else 8192, "original_max_position_embeddings": 600}
    (model / "config.json").write_text(json.dumps(config))
    typed = [f"model.path={model}", "model.max_context_length=1000", "builder=dense,quest", "validate.max_requests=6"]
    runs = []
    for compute in (["compute=inline"], ["compute=local", "compute.workers=2"]):
        folder = tmp_path / compute[0]
        folder.mkdir()
        done = sahub(
            "validate", "-m", *typed, *compute, "validate.max_context_length=900,400", cwd=folder, env=own(folder)
        )
        assert done.returncode == 0, done.stderr
        runs.append(timeless(next((folder / "multirun").iterdir())))
    assert runs[0] == runs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("scheduler", "builder", "first", "most"),
    [("median", "quest", 2, 6), ("asha", "quest", 2, 6), ("race", "snapkv", 6, 12)],  # a race needs clear losers
)
def test_schedulers_prune_the_same_trials_with_any_number_of_workers(tmp_path, scheduler, builder, first, most):
    runs = {}
    for name, workers in {"inline": [], "one": ["compute.workers=1"], "two": ["compute.workers=2"]}.items():
        folder = tmp_path / name
        folder.mkdir()
        done = sahub(
            "search", f"builder={builder}", f"compute={'local' if workers else 'inline'}", *workers, *TINY,
            f"scheduler={scheduler}", f"scheduler.first={first}", f"search.max_requests={most}", "search.num_samples=7",
            "search.batch=3", "phases=[search]", cwd=folder, env=own(folder),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        runs[name] = timeless(next((folder / "outputs").iterdir()))
    assert runs["one"] == runs["two"] == runs["inline"]
    trials = read(one(tmp_path / "two" / "outputs", "*_trials.json"))
    pruned = [trial for trial in trials if trial["state"] == "pruned"]
    assert pruned
    assert all("contexts" in trial["reason"] for trial in pruned)


@pytest.mark.slow
def test_a_tracker_hears_of_every_cell_from_the_run_itself(tmp_path):
    """Two cells on two workers: each has its event file with trials, winner and validation."""
    done = sahub(
        "search", "-m", "builder=quest,streaming_llm", "compute=local", "compute.workers=2", "tracker=tensorboard",
        *TINY, cwd=tmp_path, env=own(tmp_path),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert not done.stderr.strip()
    folders = sorted(file.parent.parent for file in tmp_path.rglob("events.out.tfevents.*"))
    assert len(folders) == 2
    for folder in folders:
        found = scalars(folder / "tensorboard")
        [best] = [file for file in folder.glob("optimal_configs/*_10.json")]
        assert found["best/value"] == [(0, pytest.approx(read(best)["figures"]["value"]))]
        trials = read(one(folder, "*_trials.json"))
        complete = [
            trial["number"] for trial in trials if trial["fidelity"] == "teacher" and trial["value"] is not None
        ]
        assert [step for step, _ in found["teacher/value"]] == complete
        assert found["validation/n"] == [(0, 4.0)]


SLOW = (
    "stages: {nasty: {window_size: 24, mode: slow, seconds: 0.3}}\nsearch: {nasty: {window_size: {low: 8, high: 30}}}"
)


def works(folder: Path, running: subprocess.Popen) -> bool:
    """Whether a run came as far as its first finished context."""
    found = wait_for(lambda: running.poll() is not None or kept(folder), 120)
    return found and running.poll() is None


def kept(folder: Path) -> list[Path]:
    return list(folder.rglob("cache/sahub/journal/*/*.json"))


def folders_of(running: subprocess.Popen) -> list[Path]:
    return list(Path(gettempdir()).glob(f"sahub-ray-{running.pid}-*"))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("number", "group", "times", "status"),
    [
        (signal.SIGINT, True, 1, 130),
        (signal.SIGINT, True, 3, 130),
        (signal.SIGTERM, False, 1, 143),
        (signal.SIGTERM, True, 1, 143),
        (signal.SIGHUP, False, 2, 129),
        (signal.SIGKILL, False, 1, -9),
    ],
    ids=["ctrl-c", "ctrl-c-thrice", "sigterm", "sigterm-all", "sighup-twice", "sigkill"],
)
def test_nothing_is_left_after_a_signal(tmp_path, number, group, times, status):
    env = own(tmp_path, with_plugin(tmp_path))
    with start(
        "search", builder(tmp_path, "nasty", SLOW), "builder=nasty", "compute=local", "compute.workers=2", *TINY,
        "search.num_samples=50", cwd=tmp_path, env=env,
    ) as running:  # fmt: skip
        assert works(tmp_path, running), running.communicate()
        assert len(left(tmp_path)) > 3
        for _ in range(times):
            (os.killpg if group else os.kill)(running.pid, number)
            time.sleep(0.7)
        _, said = running.communicate(timeout=60)
    assert running.returncode == status
    patience = (
        90 if number == signal.SIGKILL else 20
    )  # agents of Ray that lost their node end by themselves in a minute
    assert wait_for(lambda: not left(tmp_path), patience), left(tmp_path)
    if number != signal.SIGKILL:
        assert said == "interrupted; run the same command again: what was finished is kept\n"
        assert not folders_of(running)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("process", "sigint"),
    [("raylet", signal.default_int_handler), ("gcs_server", signal.SIG_IGN)],
    ids=["raylet", "gcs-in-background"],
)
def test_a_run_says_that_ray_died(tmp_path, process, sigint):
    env = own(tmp_path, with_plugin(tmp_path))
    arguments = [builder(tmp_path, "nasty", SLOW), "builder=nasty", "compute=local", *TINY, "search.num_samples=6"]
    before = signal.signal(signal.SIGINT, sigint)  # the run inherits that it is ignored
    with start("search", *arguments, cwd=tmp_path, env=env) as running:
        signal.signal(signal.SIGINT, before)
        assert works(tmp_path, running), running.communicate()
        [pid] = [pid for pid in left(tmp_path) if Path(f"/proc/{pid}/comm").read_text().startswith(process)]
        os.kill(pid, signal.SIGKILL)
        _, said = running.communicate(timeout=60)
    assert running.returncode == 1
    assert said == f"failed: Ray died ({process}); run the same command again: what was finished is kept\n"
    assert wait_for(lambda: not left(tmp_path), 20), left(tmp_path)
    assert not folders_of(running)
    assert "Ray died" in one(tmp_path, "error.txt").read_text("utf-8")


def test_ray_that_cannot_start_is_one_line(tmp_path):
    code = (
        "import sys, ray\n"
        "def init(**options): raise TimeoutError('nobody answers\\nand a second line')\n"
        "ray.init = init\n"
        "from sahub.cli.main import run; sys.exit(run('search', sys.argv[1:]))"
    )
    done = forked(code, "-m", "builder=quest,streaming_llm,dense", "compute=local", *TINY, cwd=tmp_path)
    assert done.returncode == 1
    retry, said = done.stderr.splitlines()
    assert "Ray did not start (TimeoutError); trying once more" in retry
    assert said.endswith(
        "and 2 more: compute=local: Ray could not start (TimeoutError: nobody answers); compute=inline works without it"
    )
    assert len(list(tmp_path.rglob("error.txt"))) == 3


def test_a_cluster_that_is_not_there_is_named(tmp_path):
    done = forked(RUN.format("search"), "compute=cluster", "compute.address=127.0.0.1:1", *TINY, cwd=tmp_path)
    assert done.returncode == 1
    assert "compute=cluster: Ray could not join the cluster at 127.0.0.1:1" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_gpus_that_are_not_there_are_named_before_any_work(tmp_path):
    typed = ["builder=quest,dense", "compute=gpu", "compute.gpu_ids=[99]", *TINY]
    done = forked(RUN.format("search"), "-m", *typed, cwd=tmp_path)
    assert done.returncode == 1
    [line] = done.stderr.splitlines()
    assert line.startswith("compute.gpu_ids=[99]: this machine has ")
    assert not list(tmp_path.rglob("benchmark_summary.json"))


def test_the_help_and_a_plan_know_nothing_of_ray(tmp_path):
    code = "import sys; from sahub.cli.main import run; run('search', sys.argv[1:]); assert 'ray' not in sys.modules"
    for arguments in (["--help"], ["compute=local", "dry_run=true"]):
        done = forked(code, *arguments, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
