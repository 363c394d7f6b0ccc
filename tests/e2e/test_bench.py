"""`python -m pipelines.bench` in a process of its own: what it prints and writes, and how it ends."""

import csv
import json
from pathlib import Path

import pytest
from commands import TINY, forked, many, one, read, sahub

WRONG = [
    (["bench.length=[128]"], "bench.length=[128]: no such key; did you mean bench.lengths?"),
    (["bench.lengths=[0]"], "bench.lengths=[0]: must be at least 64 (tokens)"),
    (["bench.lengths=[-5,128]"], "bench.lengths=[-5,128]: must be at least 64 (tokens)"),
    (["bench.lengths=128"], "bench.lengths=128: must be a list such as [a,b]"),
    (["bench.lengths=[]"], "bench.lengths=[]: must name at least one length (tokens)"),
    (["bench.rounds=0"], "bench.rounds=0: must be at least 1 (steps)"),
    (["builder=qest"], "builder=qest: no such builder; did you mean quest?"),
    (["task=ruler/vt"], "task=ruler/vt: `sahub bench` does not read it"),
    (["search.seed=1"], "search.seed=1: `sahub bench` does not read it"),
    (["model=hf", "model.path=nobody/nothing"], "weights of nobody/nothing are not on this machine; fetch them: hf "),
]


def test_builders_stand_beside_dense(tmp_path: Path) -> None:
    done = sahub("bench", "-m", "builder=quest,streaming_llm", "bench.lengths=[64,128]", "bench.rounds=2", cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (0, "")
    for words in ("model embedded, float32, sparse in 4 layers", "x dense", "than dense", "1 of ", "those of a text"):
        assert words in done.stdout
    root = Path(done.stdout.splitlines()[-1].removeprefix("files: "))
    assert root.parent == tmp_path / "multirun"
    rows = list(csv.DictReader((root / "bench.csv").read_text(encoding="utf-8").splitlines()))
    names = ["dense", "quest", "streaming_llm"]
    assert [(row["builder"], row["keys"]) for row in rows] == [(name, keys) for keys in ("64", "128") for name in names]
    assert all(float(row["rest_ms"]) > 0 and float(row["tokens_per_second"]) > 0 for row in rows)
    assert {row["against_dense"] for row in rows[::3]} == {"1.0"}
    written = json.loads((root / "bench.json").read_text(encoding="utf-8"))
    [model] = written["models"]
    assert set(model["crossovers"]) == {"quest", "streaming_llm"}
    assert model["builders"]["quest"]["quest"]["page_size"] == 16
    assert {"cpu", "cores", "threads", "torch", "date"} <= set(model["machine"])
    assert written["versions"]["torch"]
    assert (root / "bench.png").read_bytes().startswith(b"\x89PNG")


STOPPED = """
import signal, sys
from sahub.bench import run as module
from sahub.cli.main import run
real = module.measured
def measured(model, lengths, *others, **settings):
    if lengths == [128]:
        signal.raise_signal(signal.SIGTERM)
    return real(model, lengths, *others, **settings)
module.measured = measured
sys.exit(run("bench", sys.argv[1:]))
"""


def test_what_was_measured_is_there_when_a_bench_is_stopped(tmp_path: Path) -> None:
    done = forked(STOPPED, "bench.lengths=[64,128]", "bench.rounds=1", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (143, "interrupted\n")  # no word of a second run, which finds nothing
    assert " quest " in done.stdout
    assert read(one(tmp_path, "bench.json"))["models"][0]["steps"][-1]["keys"] == 64


@pytest.mark.slow
def test_a_search_for_speed_says_what_it_predicts(tmp_path: Path) -> None:
    done = sahub(
        "search", "compute=inline", "objective=latency", "objective.largest_loss=1", "builder=streaming_llm", *TINY,
        "phases=[search]", "search.num_samples=2", "search.promote=0", "search.calibrate=0", "search.decide=0",
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (0, "")
    root = Path(done.stdout.splitlines()[-1].removeprefix("files: "))
    [row] = json.loads((root / "benchmark_summary.json").read_text(encoding="utf-8"))["cells"]
    predicted, error = 1e3 * row["best"]["step_seconds"], row["step_costs"]["sparse"]["error"]
    assert predicted > 0
    assert row["step_costs"]["machine"]["threads"] == 1
    dense = 1e3 * row["best"]["dense_step_seconds"]
    assert f" {predicted:.3g} ±{100 * error:.0f} % ({dense:.3g}) " in done.stdout
    [best] = root.glob("optimal_configs/*latency*largest_loss_1.json")
    assert json.loads(best.read_text(encoding="utf-8"))["figures"]["step_seconds"] == row["best"]["step_seconds"]
    log = (root / "sahub.log").read_text(encoding="utf-8")
    assert "measuring steps of" in log
    assert "median error" in log


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Exit status and output of every wrong command line."""
    found, imported = many("bench", [arguments for arguments, _ in WRONG], tmp_path_factory.mktemp("work"))
    assert not {"torch", "transformers"} & set(imported)
    return found


@pytest.mark.parametrize("index", range(len(WRONG)), ids=[" ".join(words) for words, _ in WRONG])
def test_a_mistake_is_named_in_few_lines(index: int, endings: list[tuple[int, str]]) -> None:
    status, output = endings[index]
    assert status == 1
    assert len(output.splitlines()) <= 2
    assert output.startswith(WRONG[index][1])
