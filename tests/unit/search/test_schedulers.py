"""Schedulers prune at rounds that a whole generation has reached: deterministic, told, shown, and never the winner."""

import logging

import pytest
from arithmetic import PINNED, Arithmetic, figures, kl, run

from sahub.config.settings import Scheduler
from sahub.report.columns import texts_of
from sahub.search.schedulers import losers, rungs

FREE = ["objective=default", "builder.stages.sink.sink_size=4", "builder.stages.local.window_size=8"]


def test_rungs_grow_by_eta_and_end_before_all():
    assert rungs(Scheduler(name="none"), 10) == []
    assert rungs(Scheduler(name="median", first=2, eta=2), 10) == [2, 4, 8]
    assert rungs(Scheduler(name="asha", first=1, eta=3), 9) == [1, 3]
    assert rungs(Scheduler(name="asha", first=10), 10) == []


def test_median_ends_what_is_worse_than_the_middle():
    found = losers(Scheduler(name="median"), [0.5, 0.1], {"a": 0.2, "b": 0.3, "c": 0.9}, 4)
    assert found == {"c": "0.9 after 4 contexts: worse than the median 0.3 of 5 trials"}


def test_asha_lets_the_best_share_go_on_and_breaks_ties_in_the_order_asked():
    scheduler = Scheduler(name="asha", eta=2)
    assert set(losers(scheduler, [], {"a": 0.2, "b": 0.2, "c": 0.2, "d": 0.1}, 4)) == {"b", "c"}
    found = losers(scheduler, [0.1, 0.1], {"a": 0.2, "b": 0.3}, 4)
    assert found["a"] == "0.2 after 4 contexts: rank 3 of 4, the best 2 go on"
    assert losers(Scheduler(name="asha", eta=9), [], {"a": 1.0}, 4) == {}


@pytest.mark.parametrize("name", ["median", "asha"])
def test_a_round_that_nobody_survived_ends_nobody(name):
    assert losers(Scheduler(name=name), [], {}, 4) == {}


@pytest.mark.parametrize("name", ["median", "asha"])
def test_a_pruned_trial_says_why_has_no_value_and_costs_less(name):
    work, whole = Arithmetic(), Arithmetic()
    study, full = run(*FREE, f"scheduler={name}", work=work), run(*FREE, work=whole)
    pruned = [trial for trial in study.trials if trial.state == "pruned"]
    assert pruned
    for trial in pruned:
        assert trial.value is None
        assert trial.feasible is None
        assert not trial.measures
        assert trial.contexts in (2, 4)
        assert f"after {trial.contexts} contexts" in trial.reason
        assert list(trial.rungs) == [2, 4][: trial.contexts // 2]
    assert study.best.state == "complete"
    assert study.default.state == "complete"
    assert list(study.default.rungs) == [2, 4]
    assert study.counts() == {
        "complete": 12 - len(pruned), "pruned": len(pruned), "rejected": 0, "failed": 0
    }  # fmt: skip
    spent = [sum(stacks * contexts for stacks, contexts in one.asked) for one in (work, whole)]
    assert spent[0] < spent[1] == 12 * 6
    assert len(full.trials) == 12


@pytest.mark.parametrize("name", ["median", "asha"])
def test_the_same_trials_again(name):
    assert figures(run(*FREE, f"scheduler={name}")) == figures(run(*FREE, f"scheduler={name}"))


def test_survivors_have_the_figures_that_they_have_without_a_scheduler():
    pruning = run(*PINNED, "scheduler=median", "search.num_samples=30")
    plain = {trial.overrides: trial for trial in run(*PINNED, "search.num_samples=30").trials}
    survivors = [trial for trial in pruning.trials if trial.state == "complete"]
    assert 1 < len(survivors) < 24
    for trial in survivors:
        assert trial.value == pytest.approx(plain[trial.overrides].value, abs=1e-12)
        assert trial.contexts == plain[trial.overrides].contexts == 6
    assert pruning.best.overrides == min(plain.values(), key=lambda trial: trial.rank).overrides


def test_the_default_is_never_pruned_however_bad_it_is():
    def bad_default(quest, text):
        return 9.0 if quest.page_size == 16 else kl(quest, text)

    study = run(*PINNED, "scheduler=asha", work=Arithmetic(kl=bad_default))
    assert study.default.state == "complete"
    assert "page_size=16" in " ".join(study.default.overrides)


def test_a_failure_in_a_later_round_is_a_failure():
    work = Arithmetic(broken=lambda quest, text: text == "x" * 4 and quest.page_size != 16)
    study = run(*PINNED, "scheduler=median", "search.num_samples=30", work=work)
    assert all(trial.state != "complete" for trial in study.trials if "page_size=16" not in trial.overrides[0])
    assert {trial.reason for trial in study.trials if trial.state == "failed"} == {"broken on xxxx"}


def test_a_scheduler_without_contexts_to_spare_says_so(caplog):
    with caplog.at_level(logging.WARNING):
        study = run(*PINNED, "scheduler=median", count=2)
    assert "scheduler.first=2 prunes nothing: the search has 2 contexts" in caplog.text
    assert study.counts()["pruned"] == 0


def test_pruned_trials_have_their_column_in_the_report():
    row = dict.fromkeys(["task", "builder", "objective", "model", "directory"], "x") | {"compared": {}}
    row |= {
        "validation": None,
        "verdict": None,
        "best": None,
        "target_density": None,
        "target_aux_bits": None,
        "seconds": 1.0,
    }
    row["trials"] = {"complete": 7, "pruned": 3, "rejected": 2, "failed": 1}
    assert texts_of([row])[0]["trials"] == "7/3/2/1"
