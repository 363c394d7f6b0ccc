"""A search by replay: no answers are forced, the best few generate."""

import pytest

from sahub import optimize

SMALL = [
    "search.num_samples=3", "search.batch=2", "search.promote=1", "search.calibrate=0", "search.max_requests=2",
    "search.decide=0",
    "search.max_context_length=512", "search.max_new_tokens=4", "phases=[search]", "compute=inline",
]  # fmt: skip


def test_a_search_by_replay_ranks_by_what_replay_measures(tmp_path):
    how = ["search.fidelity=replay", "objective.measure=worst_top1_missed"]
    study = optimize(builder="quest", overrides=[*how, *SMALL], directory=tmp_path).study
    cheap = [trial for trial in study.trials if trial.fidelity == "replay"]
    assert [trial.state for trial in cheap] == ["complete"] * 3
    assert all("answer_kl" not in trial.measures and "mass_lost" in trial.measures for trial in cheap)
    assert study.best.value == min(trial.value for trial in cheap if trial.feasible)
    assert study.best.measures["worst_top1_missed"] >= study.best.measures["top1_missed"] >= 0
    assert {trial.fidelity for trial in study.trials} == {"replay", "generate"}
    dear = {trial.overrides: trial for trial in study.trials if trial.fidelity == "generate"}
    for trial in cheap:
        if trial.overrides in dear:
            name = "worst_top1_missed"
            assert dear[trial.overrides].measures[name] == trial.measures[name]
            assert "answer_kl" in dear[trial.overrides].measures


def test_a_measure_that_replay_lacks_is_looked_at_more_closely(tmp_path):
    study = optimize(builder="streaming_llm", overrides=["search.fidelity=replay", *SMALL], directory=tmp_path).study
    assert study.trials[0].fidelity == "teacher"


@pytest.mark.parametrize("measure", ["attention_error", "top1_missed"])
def test_errors_of_attention_are_measured_where_the_objective_reads_them(tmp_path, measure):
    how = ["search.fidelity=replay", f"objective.measure={measure}", *SMALL, "search.num_samples=1"]
    study = optimize(builder="quest", overrides=how, directory=tmp_path).study
    assert ("attention_error" in study.default.measures) == (measure == "attention_error")
