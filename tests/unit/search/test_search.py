"""Searches in generations: every trial ends in a state, only complete and feasible ones can win, seeds repeat."""

from dataclasses import dataclass

import pytest
import torch

from sahub.attention.stage import Stage
from sahub.builders.build import register_method
from sahub.compute.worker import drive
from sahub.config.cell import compose_cell
from sahub.data.examples import TaskSpec
from sahub.data.loading import load_examples
from sahub.engine.evaluate import evaluate
from sahub.engine.model import wrap_model
from sahub.engine.requests import prepare
from sahub.engine.session import Session
from sahub.errors import ConfigError, RunError
from sahub.run.check import check_cell
from sahub.search.scope import Part
from sahub.search.search import Search

SMALL = [
    "search.num_samples=7",
    "search.batch=3",
    "search.promote=0",
    "search.calibrate=0",
    "search.decide=0",
    "search.max_new_tokens=4",
]


@dataclass(frozen=True, kw_only=True)
class Fuse(Stage):
    """Keeps the last key, or goes wrong in the way its number says."""

    kind: int = 0

    def add(self, call, taken, index):
        if self.kind == 1:
            raise RuntimeError("the fuse blew")
        if self.kind == 2:
            call.v[:, :, -1] = float("nan")  # of the answer, not of the context that others share
        own = call.rows.last[None, None, :, None]
        return taken.of(own, torch.zeros_like(own, dtype=torch.float32))


@pytest.fixture(scope="module")
def session(make_model, tokenizer) -> Session:
    return Session(wrap_model(make_model(), tokenizer, name="tiny"))


@pytest.fixture(scope="module")
def requests(session):
    spec = TaskSpec(
        benchmark="ruler",
        subset="niah_multikey_2",
        metric="string_match_all",
        max_new_tokens=8,
        options={"num_examples": 2},
    )
    examples = load_examples(spec, split="search", limit=2, length=700, count_tokens=session.model.count_tokens, seed=0)
    return prepare(session.model, examples, max_context_length=700, max_new_tokens=4, truncation="middle")


@pytest.fixture(scope="module")
def run(session, requests):
    def search(*overrides: str, builder: str = "quest", objective: str = "sparsity_25"):
        cell = compose_cell([f"builder={builder}", f"objective={objective}", *SMALL, *overrides])
        work = Search([Part(cell, requests)], session.model.geometry).work()
        return drive(work, lambda batch: evaluate(session, batch.requests, batch.attentions, batch.plan))

    return search


def figures(study):
    return [(t.number, t.state, t.fidelity, t.overrides, t.value, t.feasible, dict(t.measures)) for t in study.trials]


def test_a_seed_gives_the_same_trials_and_another_does_not(run):
    first, again, other = run(), run(), run("search.seed=1")
    assert figures(first) == figures(again)
    assert first.best.overrides == again.best.overrides
    assert [t.overrides for t in first.trials[1:]] != [t.overrides for t in other.trials[1:]]


def test_defaults_come_first_and_nothing_comes_twice(run):
    study = run()
    assert study.trials[0].overrides == study.default.overrides
    assert "builder.stages.quest.page_size=16" in study.default.overrides
    asked = [trial.overrides for trial in study.trials]
    assert len(asked) == len(set(asked)) == 7


def test_the_winner_is_the_best_complete_and_feasible_trial(run):
    study = run(objective="sparsity_10")
    allowed = [trial for trial in study.trials if trial.state == "complete" and trial.feasible]
    assert study.best == min(allowed, key=lambda trial: trial.rank)
    assert study.best.measures["density"] <= 0.10 + 128 / 500


def test_a_winner_typed_again_is_one_trial_with_the_same_figures(run):
    best = run().best
    again = run(*best.overrides)
    assert len(again.trials) == 1
    assert again.best.value == best.value
    assert again.best.measures == best.measures


def test_unpinned_overrides_are_only_the_first_guess(run):
    study = run("builder.stages.quest.page_size=32", "search.pin=false")
    assert "builder.stages.quest.page_size=32" in study.trials[0].overrides
    assert len(study.trials) == 7


def test_a_small_space_is_enumerated(run):
    study = run(
        "builder.stages.sink.sink_size=4", "builder.stages.local.window_size=8", "builder.stages.quest.label_bits=16"
    )
    pages = [trial.overrides[0].split("=")[1] for trial in study.trials]
    assert pages[0] == "16"
    assert sorted(map(int, pages)) == [4, 8, 16, 32, 64, 128]


def test_a_builder_without_free_fields_is_evaluated_once(run):
    study = run(builder="dense")
    assert len(study.trials) == 1
    assert study.trials[0].measures["density"] == 1.0
    assert study.trials[0].measures["answer_kl"] == pytest.approx(0.0, abs=1e-6)
    assert study.best == study.trials[0]  # the yardstick: targets do not bind it


def test_limits_reject_before_any_work(run):
    study = run("builder.limits.aux_bits=40")
    rejected = [trial for trial in study.trials if trial.state == "rejected"]
    assert rejected
    assert all("builder.limits.aux_bits=40: this point needs" in trial.reason for trial in rejected)
    assert all(not trial.measures and trial.value is None for trial in rejected)
    assert all(trial.measures["aux_bits"] <= 40 for trial in study.trials if trial.state == "complete")
    with pytest.raises(ConfigError, match=r"no point of the space.*builder.limits.aux_bits=0"):
        run("builder.limits.aux_bits=0")


def test_failures_are_states_and_never_win(run):
    register_method(Fuse, "fuse")
    fuse = [
        "+builder.stages.fuse={kind:0}",
        "builder.stages.sink.sink_size=4",
        "~builder.search.sink",
        "search.pin=false",
    ]
    study = run(*fuse, "+builder.search.fuse={kind:{choices:[0,1,2]}}", builder="sink")
    by_kind = {trial.overrides[0][-1]: trial for trial in study.trials}
    assert by_kind["0"].state == "complete"
    assert by_kind["1"].state == "failed"
    assert by_kind["1"].reason == "RuntimeError: the fuse blew"
    assert "Traceback" in by_kind["1"].details
    assert by_kind["2"].state == "failed"
    assert "nan" in by_kind["2"].reason.lower()
    assert all(by_kind[kind].value is None and not by_kind[kind].measures for kind in "12")
    assert study.best == by_kind["0"]
    with pytest.raises(RunError, match="none of 1 trials completed, 1 failed; the first: RuntimeError: the fuse blew"):
        run(*fuse[1:], "+builder.stages.fuse={kind:1}", builder="sink")


def test_a_trial_out_of_time_fails_by_name(run):
    with pytest.raises(RunError, match="timeout"):
        run("search.timeout_s=0.0001")


def test_a_search_out_of_time_keeps_what_it_has(run):
    study = run("search.time_budget_s=0.01")
    assert 1 <= len(study.trials) < 7
    assert study.best is not None


def test_promoted_trials_generate_and_the_rankings_are_compared(run):
    study = run("search.promote=2", "search.calibrate=3")
    dear = [trial for trial in study.trials if trial.fidelity == "generate"]
    assert 3 <= len(dear) <= 6
    assert all("benchmark_score" in trial.measures for trial in dear)
    assert study.tau is not None
    assert study.tau.n == len(dear)
    assert study.best.fidelity == "teacher"


def test_an_objective_that_needs_answers_starts_by_generating(run):
    study = run("objective.measure=benchmark_score", "search.num_samples=2")
    assert {trial.fidelity for trial in study.trials} == {"generate"}
    assert all(trial.value == pytest.approx(_formula(trial)) for trial in study.trials)


def _formula(trial):
    measures = trial.measures
    excess = max(0.0, measures["density"] - 0.25)
    return 0.99 * (1 - measures["benchmark_score"]) + 0.01 * measures["density"] + 10 * excess


def test_measures_of_the_objective_are_the_formula(run):
    study = run("objective.measure=attention_error", "search.num_samples=2")
    for trial in study.trials:
        excess = max(0.0, trial.measures["density"] - 0.25)
        assert trial.value == pytest.approx(
            0.99 * trial.measures["attention_error"] + 0.01 * trial.measures["density"] + 10 * excess
        )


def test_numbers_are_given_in_order(run):
    trials = run("search.promote=1", "search.num_samples=3").trials
    assert [trial.number for trial in trials] == list(range(len(trials)))


def test_layers_that_stay_dense_count_as_one_in_the_density_of_all_layers(run):
    sparse = run("protocol.dense_layers=[0]", "search.num_samples=1").trials[0].measures
    assert sparse["density_all_layers"] == pytest.approx((1 + sparse["density"]) / 2)
    every = run("search.num_samples=1").trials[0].measures
    assert every["density_all_layers"] == pytest.approx(every["density"])


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["builder.search.quest.page_size.choices=[8,-3]"],
            "builder.search.quest.page_size allows -3: builder.stages.quest",
        ),
        (["builder.limits.foo=1"], "builder.limits.foo: unknown"),
        (["builder.limits.aux_bits=abc"], "builder.limits.aux_bits=abc: must be at least 0"),
        (["task.metric=foo"], "task.metric=foo: must be one of string_match_all"),
        (["objective.measure=attention_error", "protocol.measure_error=off"], "protocol.measure_error=off"),
    ],
)
def test_what_cannot_work_is_known_before_any_model_is_loaded(overrides, message):
    with pytest.raises(ConfigError) as caught:
        check_cell(compose_cell(overrides))
    assert message in str(caught.value)


def test_layers_that_the_model_does_not_have_are_one_error(run):
    with pytest.raises(ConfigError, match=r"protocol\.dense_layers=\[99\]: must be in 0\.\.1"):
        run("protocol.dense_layers=[99]")


def test_combined_scores_are_searched_by_generating_and_recorded_beside_what_they_are_made_of(run):
    study = run("objective.measure=combined_score", "objective.penalty=0.5", "search.num_samples=2")
    for trial in study.trials:
        measures = trial.measures
        expected = measures["attention_error"] + 0.5 * (1 - measures["benchmark_score"])
        assert trial.fidelity == "generate"
        assert measures["combined_score"] == pytest.approx(expected)
        assert measures["attention_mse"] > 0


def test_a_function_of_ones_own_decides_and_what_it_cannot_judge_fails(run, tmp_path, monkeypatch):
    (tmp_path / "own_search.py").write_text(
        "def fewest_bits(measures, above):\n"
        "    if measures['aux_bits'] < above:\n"
        "        raise ValueError('too coarse')\n"
        "    return measures['aux_bits']\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    study = run("objective.function={_target_: own_search.fewest_bits, above: 12}")
    complete = [trial for trial in study.trials if trial.state == "complete"]
    failed = [trial for trial in study.trials if trial.state == "failed"]
    assert complete
    assert failed
    assert all("own_search.fewest_bits: ValueError: too coarse" in trial.reason for trial in failed)
    assert all("Traceback" in trial.details for trial in failed)
    assert study.best.value == min(trial.measures["aux_bits"] for trial in complete if trial.feasible)
