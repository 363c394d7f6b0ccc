"""Steps are measured once and kept; a search for speed minimises their seconds under a largest loss."""

import pytest

from sahub.compute.worker import drive
from sahub.config.cell import compose_cell
from sahub.data.examples import Example, Question, example_id
from sahub.engine.evaluate import evaluate
from sahub.engine.model import wrap_model
from sahub.engine.requests import prepare
from sahub.engine.session import Session
from sahub.errors import ConfigError
from sahub.run.check import check_cell
from sahub.search import step_costs as measuring
from sahub.search.objective import excess_over, needs, reads_errors, reads_seconds, reads_traces, value_of
from sahub.search.scope import Part
from sahub.search.search import Search
from sahub.search.step_costs import stacks_of, step_costs

TAKEN = {"step_seconds": 0.02, "tokens_changed": 0.05, "density": 0.2, "answer_kl": 0.1}
FEW = [
    "search.num_samples=6", "search.batch=3", "search.promote=0", "search.calibrate=0", "search.decide=0",
    "scheduler.first=1", "search.max_new_tokens=4",
]  # fmt: skip


@pytest.fixture(scope="module")
def session(make_model, tokenizer):
    return Session(wrap_model(make_model(), tokenizer, name="tiny"))


@pytest.fixture
def loads(session, monkeypatch):
    """The cells for which a model was loaded."""
    found = []

    def load(cell):
        found.append(cell)
        return session.model

    monkeypatch.setattr(measuring, "load", load)
    monkeypatch.setattr(measuring, "ROUNDS", 1)
    return found


def objective(*overrides):
    return compose_cell(["objective=latency", *overrides]).settings.objective


@pytest.mark.parametrize(
    ("largest", "value", "feasible"), [(0.05, 0.02, True), (0.06, 0.02, True), (0.03, 0.22, False), (0, 0.52, False)]
)
def test_what_exceeds_the_largest_loss_cannot_win(largest, value, feasible):
    asked = objective(f"objective.largest_loss={largest}")
    assert value_of(asked, TAKEN) == pytest.approx(value)
    assert (excess_over(asked, TAKEN)["loss"] <= 0) == feasible


def test_a_score_is_lost_where_it_is_low():
    asked = objective("objective.loss=benchmark_score", "objective.largest_loss=0.25")
    assert excess_over(asked, {**TAKEN, "benchmark_score": 0.8})["loss"] <= 0
    assert excess_over(asked, {**TAKEN, "benchmark_score": 0.7})["loss"] == pytest.approx(0.05)


def test_a_loss_can_bound_any_objective():
    asked = compose_cell(
        ["objective=sparsity_25", "objective.loss=answer_kl", "objective.largest_loss=0.05"]
    ).settings.objective
    assert {*excess_over(asked, TAKEN)} == {"density", "loss"}
    assert not reads_seconds(asked)


def test_a_loss_is_read_as_what_is_minimised_is():
    assert needs(objective()) == "teacher"
    assert needs(objective("objective.loss=benchmark_score")) == "generate"
    assert needs(objective("objective.loss=attention_error")) == "replay"
    assert reads_errors(objective("objective.loss=attention_error"))
    assert reads_traces(objective("objective.loss=mass_lost"))
    assert not reads_errors(objective())
    assert not reads_traces(objective())
    assert reads_seconds(objective())
    under = compose_cell(["objective=default", "objective.loss=step_seconds", "objective.largest_loss=0.01"])
    check_cell(under)
    assert reads_seconds(under.settings.objective)
    assert excess_over(under.settings.objective, TAKEN)["loss"] == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        (["objective.loss=null"], "objective.loss=None objective.largest_loss=0.02: both must be set, or neither"),
        (["objective.largest_loss=null"], "objective.loss=tokens_changed objective.largest_loss=None: both must be"),
        (["objective.loss=null", "objective.largest_loss=null"], "objective.measure=step_seconds objective.loss=None"),
        (
            ["objective.loss=step_seconds"],
            "objective.measure=step_seconds objective.loss=step_seconds: must be bounded",
        ),
        (
            ["objective.loss=attention_error", "protocol.measure_error=off"],
            "protocol.measure_error=off: objective.loss",
        ),
    ],
)
def test_an_objective_of_seconds_needs_a_bound(typed, said):
    with pytest.raises(ConfigError) as error:
        check_cell(compose_cell(["objective=latency", *typed]))
    assert str(error.value).startswith(said)


def test_steps_are_measured_once_and_again_where_asked(loads, session, tmp_path):
    typed = ["objective=latency", f"cache_dir={tmp_path}"]
    first, again = (step_costs(compose_cell(typed), session.model.geometry, longest) for longest in (256, 200))
    assert first == again
    assert len(loads) == 1
    assert first.sparse.error is not None
    assert first.machine["threads"] == 1
    for other in (["builder.stages.quest.page_size=8"], ["force=true"]):
        before = len(loads)
        step_costs(compose_cell([*typed, *other]), session.model.geometry, 256)
        assert len(loads) == before + 1


def test_stacks_beyond_a_limit_are_not_timed(session):
    every, few = (
        stacks_of(compose_cell(["objective=latency", *typed]), session.model.geometry, 256)
        for typed in ([], ["builder.limits.aux_bits=16"])
    )
    assert len(few) == len(every) - 1  # labels of 16 bits
    with pytest.raises(ConfigError, match="builder=quest: none of"):
        stacks_of(compose_cell(["objective=latency", "builder.limits.aux_bits=0"]), session.model.geometry, 256)


def test_a_search_for_speed_takes_the_fastest_within_the_loss(loads, session, tmp_path):
    texts = [f"{number} is the number of text {number}. " * 20 for number in range(3)]
    asked = [Question(id="0", text="?", references=("7",), max_new_tokens=4)]
    examples = [Example(id=example_id(text), context=text, questions=tuple(asked)) for text in texts]
    requests = prepare(session.model, examples, max_context_length=700, max_new_tokens=4, truncation="middle")
    cell = compose_cell(["objective=latency", "objective.largest_loss=0.3", f"cache_dir={tmp_path}", *FEW])
    costs = step_costs(cell, session.model.geometry, 256)
    work = Search([Part(cell, requests, costs=costs)], session.model.geometry).work()
    study = drive(work, lambda batch: evaluate(session, batch.requests, batch.attentions, batch.plan))
    assert {trial.state for trial in study.trials} == {"complete"}  # nobody ends early
    for trial in study.trials:
        shares = {name: trial.measures[name] for name in ("density", "kv_density")}
        assert trial.measures["step_seconds"] > 0
        assert trial.measures["dense_step_seconds"] == study.trials[0].measures["dense_step_seconds"] > 0
        assert trial.feasible == (trial.measures["tokens_changed"] <= 0.3)
        assert shares["density"] <= 0.51
    within = [trial for trial in study.trials if trial.feasible]
    assert study.best == min(within, key=lambda trial: trial.rank, default=None)
    assert all(study.best.measures["step_seconds"] <= trial.measures["step_seconds"] for trial in within)
