"""Every limit has an effect of its own, on the search and on the validation apart."""

import csv

import pytest
from commands import TINY, builder, environment, one, read, sahub, with_plugin
from sleeping import Sleeping

from sahub import optimize, register_method
from sahub.errors import RunError

SLOW = """
stages: {nasty: {window_size: 24, mode: slow, seconds: 0.2}}
search: {nasty: {window_size: {low: 8, high: 30}}}
"""


def test_requests_lengths_and_new_tokens_of_search_and_validation(tmp_path):
    limits = [
        "search.num_samples=3", "search.max_requests=2", "search.max_context_length=400", "search.max_new_tokens=1",
        "search.decide=0",
        "validate.max_requests=5", "validate.max_context_length=700", "validate.max_new_tokens=6",
    ]  # fmt: skip
    done = sahub("search", "builder=oracle_topk", "compute=inline", "search.fidelity=generate", *limits, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    best = read(one(tmp_path, "optimal_configs/*_sparsity_10.json"))
    assert best["n"] == 2
    assert sum(best["trials"].values()) == 3
    assert best["figures"]["benchmark_score"] == 0.0  # one token is no answer
    [cell] = read(one(tmp_path, "benchmark_summary.json"))["cells"]
    found = cell["validation"]
    assert found["n"] == 5
    assert 400 < found["tokens"] <= 700
    with next(tmp_path.rglob("dense/*/raw_results.csv")).open(encoding="utf-8") as file:
        lengths = [int(row["n_new"]) for row in csv.DictReader(file)]
    assert 1 < max(lengths) <= 6


def test_time_of_a_search_and_of_a_validation(tmp_path):
    """A context takes about a second; the budget prunes what is under way, and the rest is decided on what is there."""
    own = builder(tmp_path, "nasty", SLOW), "builder=nasty", "compute=inline", *TINY
    limits = ["search.num_samples=500", "search.promote=0", "search.calibrate=0", "search.time_budget_s=6"]
    done = sahub(
        "search", *own, *limits, "search.max_requests=1", "search.decide=0", "validate.timeout_s=2",
        cwd=tmp_path, env=environment(with_plugin(tmp_path)),
    )  # fmt: skip
    trials = read(one(tmp_path, "*_trials.json"))
    assert 2 <= sum(trial["state"] == "complete" for trial in trials) < 12
    assert {trial["state"] for trial in trials} <= {"complete", "pruned"}
    assert all("time_budget_s" in trial["reason"] for trial in trials if trial["state"] == "pruned")
    assert one(tmp_path, "optimal_configs/*_sparsity_10.json")
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("failed: the sparse validation failed: timeout: longer than 2 s")


def test_time_of_a_trial_ends_it_between_its_contexts(tmp_path):
    """Each takes more than 0.3 s, and there are eight of them."""
    register_method(Sleeping)
    limits = [
        "search.timeout_s=1",
        "search.max_requests=8",
        "search.decide=0",
        "search.max_context_length=400",
        "search.num_samples=1",
    ]
    slow = ["compute=inline", "++builder.stages.sleeping.seconds=0.3"]
    with pytest.raises(RunError, match="none of 1 trials completed, 1 failed; the first: timeout: longer than 1 s"):
        optimize(builder="streaming_llm", overrides=[*slow, *limits], directory=tmp_path)
    [trial] = read(one(tmp_path, "*_trials.json"))
    assert trial["state"] == "failed"
    assert 1 < trial["seconds"] < 8 * 0.3


@pytest.mark.slow
@pytest.mark.parametrize(("of_search", "of_validation"), [(1, 2), (2, 1)])
def test_workers_at_once_of_a_search_and_of_a_validation(tmp_path, of_search, of_validation):
    most = [f"search.max_concurrent={of_search}", f"validate.max_concurrent={of_validation}"]
    own = builder(tmp_path, "nasty", SLOW), "builder=nasty", "compute=local", "compute.workers=2"
    notes = tmp_path / "notes"
    done = sahub(
        "search", *own, *TINY, *most, cwd=tmp_path, env=environment(with_plugin(tmp_path), NASTY_NOTES=str(notes))
    )
    assert done.returncode == 0, done.stderr
    searched = one(tmp_path, "*_trials.json").stat().st_mtime
    workers: dict[bool, set[str]] = {True: set(), False: set()}
    for pid, moment in map(str.split, notes.read_text(encoding="utf-8").splitlines()):
        workers[float(moment) < searched].add(pid)
    assert (len(workers[True]), len(workers[False])) == (of_search, of_validation)
