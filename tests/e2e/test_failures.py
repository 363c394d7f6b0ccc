"""Everything that can go wrong in a trial is a state with its cause; nothing of it can win."""

import pytest
from commands import TINY, builder, environment, one, read, sahub, with_plugin

CAUSES = {
    "no_number": "not a finite number: answer_kl is nan",
    "raise": "ValueError: broken on purpose",
    "memory": "out of memory, also with one question at a time and no other context held (simulated): take fewer",
    "slow_steps": "timeout: longer than 2 s (after ",
    "kill": "killed worker: its process died: killed, or out of memory",
}


def nasty(modes: list[str]) -> str:
    """A builder whose points are these modes; the first one is the default."""
    return f"""
        stages: {{nasty: {{window_size: 24, mode: {modes[0]}, seconds: 0.25}}}}
        search: {{nasty: {{mode: {{choices: {modes}}}}}}}
    """


@pytest.mark.parametrize(
    ("compute", "modes"),
    [
        pytest.param("inline", ["no_number", "raise", "memory", "slow_steps"], id="inline"),
        pytest.param("local", [*CAUSES], id="ray", marks=pytest.mark.slow),
    ],
)
def test_every_failure_is_a_state_with_its_cause(tmp_path, compute, modes):
    own = builder(tmp_path, "nasty", nasty(["fine", *modes])), "builder=nasty"
    limits = [
        "search.num_samples=20",
        "search.timeout_s=2",
        "search.max_requests=1",
        "search.decide=0",
        "search.fidelity=generate",
    ]
    done = sahub(
        "search", *own, f"compute={compute}", *TINY, *limits, "phases=[search]",
        cwd=tmp_path, env=environment(with_plugin(tmp_path)),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = {trial["overrides"][0].rpartition("=")[2]: trial for trial in read(one(tmp_path, "*_trials.json"))}
    assert trials.keys() == {"fine", *modes}
    assert {mode: trial["state"] for mode, trial in trials.items()} == {"fine": "complete"} | dict.fromkeys(
        modes, "failed"
    )
    for mode in modes:
        assert trials[mode]["reason"].startswith(CAUSES[mode])
        assert trials[mode]["value"] is None
        assert not trials[mode]["measures"]
    best = read(one(tmp_path, "optimal_configs/*_sparsity_10.json"))
    assert best["stage_overrides"] == ["builder.stages.nasty.mode=fine"]
    assert "Traceback" not in done.stderr
    assert "raylet" not in done.stdout + done.stderr  # it has its say in the log
    assert done.stdout.startswith("model embedded,")


@pytest.mark.parametrize("compute", ["inline", pytest.param("local", marks=pytest.mark.slow)])
def test_a_cell_whose_every_trial_failed_has_no_best_file_and_says_why(tmp_path, compute):
    own = builder(tmp_path, "nasty", nasty(["raise", "memory"])), "builder=nasty"
    done = sahub("search", *own, f"compute={compute}", *TINY, cwd=tmp_path, env=environment(with_plugin(tmp_path)))
    assert done.returncode == 1
    assert "none of 2 trials completed, 2 failed; the first: ValueError: broken on purpose" in done.stderr
    assert [trial["state"] for trial in read(one(tmp_path, "*_trials.json"))] == ["failed", "failed"]
    assert "ValueError: broken on purpose" in one(tmp_path, "error.txt").read_text("utf-8")
    assert not list(tmp_path.rglob("optimal_configs/*_sparsity_10.json"))
    [cell] = read(one(tmp_path, "benchmark_summary.json"))["cells"]
    assert not cell["ok"]


@pytest.mark.slow
def test_a_winner_that_kills_its_worker_in_validation_costs_no_other_cell(tmp_path):
    own = builder(tmp_path, "nasty", nasty(["kill"])), "builder=nasty,streaming_llm"
    done = sahub(
        "validate", "-m", *own, "compute=local", *TINY[5:], cwd=tmp_path, env=environment(with_plugin(tmp_path))
    )
    assert done.returncode == 1
    bad, good = read(one(tmp_path, "benchmark_summary.json"))["cells"]
    assert "killed worker" in bad["message"]
    assert good["ok"]
    assert good["validation"]["n"] == 4
