"""A matrix loses nothing but the cell that is broken, and computes nothing twice."""

import json
import os
import shutil
import signal
from pathlib import Path

import pytest
from commands import ROOT, TINY, builder, environment, one, read, sahub, start, wait_for, with_plugin
from timeless import timeless

# Broken at one budget alone.
BREAKS = """
stages: {nasty: {window_size: 12, mode: raise_at_5_percent}}
search: {nasty: {window_size: {choices: [8, 12]}}}
"""
CELLS = [
    "builder=local,streaming_llm,oracle_topk,nasty",
    "objective=sparsity_5,sparsity_10,sparsity_15,sparsity_20,sparsity_25,sparsity_50",
    *TINY,
    "search.num_samples=3",
    "search.max_requests=2",
    "search.decide=1",
    "validate.max_requests=3",
]


def summary(root: Path) -> list[dict]:
    return read(one(root, "benchmark_summary.json"))["cells"]


@pytest.mark.slow
@pytest.mark.parametrize("compute", ["inline", "local"])
def test_a_broken_cell_of_24_and_a_kill_in_the_middle(tmp_path, compute):
    env = environment(with_plugin(tmp_path), XDG_CACHE_HOME=str(tmp_path / "cache"))
    command = ["search", "-m", builder(tmp_path, "nasty", BREAKS), *CELLS, f"compute={compute}"]
    killed, again, third = (tmp_path / name for name in ("killed", "again", "third"))
    with start(*command, f"results_dir={killed}", cwd=tmp_path, env=env) as running:
        assert wait_for(lambda: len(list(killed.rglob("*_trials.json"))) >= 12, 400), running.communicate()
        os.kill(running.pid, signal.SIGKILL)
        running.communicate()
    finished = {file.parents[1].name for file in killed.rglob("optimal_configs/*_trials.json")}
    done = sahub(*command, f"results_dir={again}", cwd=tmp_path, env=env)
    cells = summary(again)
    assert len(cells) == 24
    assert done.returncode == 1
    [broken] = [cell for cell in cells if not cell["ok"]]
    assert (broken["builder"], broken["objective"]) == ("nasty", "sparsity_5")
    assert done.stderr.splitlines()[-1].startswith("embedded_ruler_niah_multikey_2_nasty_sparsity_5: ")
    assert "ValueError: broken on purpose" in done.stderr.splitlines()[-1]
    assert "ValueError: broken on purpose" in one(again, "error.txt").read_text("utf-8")
    assert one(again, "error.txt").parent.name == broken["directory"]
    assert all(cell["validation"]["n"] == 3 for cell in cells if cell["ok"])
    # Searches that were finished compute nothing; the validation, one for all cells, had not begun.
    done = sahub(*command, "phases=[search]", f"results_dir={third}", cwd=tmp_path, env=env)
    assert {cell["computed"] for cell in summary(third) if cell["ok"]} == {0}
    assert finished - {broken["directory"]}
    before, after = timeless(next((again / "multirun").iterdir())), {}
    for cell in finished - {broken["directory"]}:
        trials = one(killed, f"optimal_configs/{cell}_trials.json")
        after[cell] = [{**trial, "seconds": 0} for trial in read(trials)]
        [name] = [name for name in before if name.endswith(f"/{cell}_trials.json")]
        assert [{**trial, "seconds": 0} for trial in json.loads(before[name])] == after[cell]


def test_two_runs_at_once_on_one_cache(tmp_path):
    """The second one may find what the first one did, or do it as well: the files are the same."""
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))
    command = ["search", "builder=streaming_llm", "compute=inline", *TINY, "phases=[search]"]
    with start(*command, "results_dir=one", cwd=tmp_path, env=env) as running:
        beside = sahub(*command, "results_dir=two", cwd=tmp_path, env=env)
        _, said = running.communicate(timeout=300)
    assert (beside.returncode, running.returncode) == (0, 0), beside.stderr + said
    one_run, other = (timeless(next((tmp_path / name / "outputs").iterdir())) for name in ("one", "two"))
    assert one_run == other


def test_other_weights_and_force_compute_again(tmp_path):
    model = tmp_path / "model"
    shutil.copytree(ROOT / "sahub" / "embedded", model)
    small = [*TINY, "search.num_samples=2", "search.decide=0", "search.max_requests=2", "phases=[search]"]
    command = ["builder=streaming_llm", "compute=inline", "model=hf", f"model.path={model}", *small]
    env = environment(XDG_CACHE_HOME=str(tmp_path / "cache"))

    def counted(*more: str) -> tuple[int, int]:
        folder = tmp_path / f"run{len(list(tmp_path.glob('run*')))}"
        done = sahub("search", *command, *more, f"results_dir={folder}", cwd=tmp_path, env=env)
        assert done.returncode == 0, done.stderr
        [cell] = summary(folder)
        assert f"computed {cell['computed']}, from the cache {cell['served']}" in done.stdout
        return cell["computed"], cell["served"]

    first, none = counted()
    assert none == 0
    assert first > 0
    assert counted() == (0, first)
    assert counted("force=true") == (first, 0)
    weights = model / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-7] ^= 1
    weights.write_bytes(content)
    computed, _ = counted()
    assert computed >= first - 2  # other values may lead to other points; none of them was served
