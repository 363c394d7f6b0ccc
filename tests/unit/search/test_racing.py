"""Races: who is surely worse than the best so far ends, whoever may still be the best goes on; the same each time."""

import math
from dataclasses import replace

import pytest
from arithmetic import PINNED, Arithmetic, figures, kl, run
from hypothesis import given
from hypothesis import strategies as st

from sahub.search.racing import losers
from sahub.search.trial import Trial

RACE = [*PINNED, "scheduler=race", "search.num_samples=30"]
COUNT = 20  # contexts: decisions after 6 and 12


def trial(name: str, *values: float, feasible: bool = True) -> Trial:
    each = {str(number): value for number, value in enumerate(values)}
    return Trial(state="complete", fidelity="teacher", overrides=(name,), feasible=feasible, each=each)


def test_who_is_surely_worse_ends_and_who_may_be_better_goes_on():
    best, close, far = trial("best", *[1] * 6), trial("close", *[2] * 5, 0.9), trial("far", *range(2, 8))
    found = losers([], {"best": best, "close": close, "far": far}, 6)
    assert found == {"far": "4.5 after 6 contexts: the best so far has 1, and less in 6 of 6"}


def test_one_context_that_costs_more_than_all_others_decides_nothing():
    best, unlucky = trial("best", *[1] * 12), trial("unlucky", *[0.9] * 11, 99)
    assert losers([], {"best": best, "unlucky": unlucky}, 12) == {}


@pytest.mark.parametrize(("count", "told"), [(5, False), (6, True)])
def test_six_contexts_can_tell_and_five_cannot(count, told):
    """All of them worse: the chance is 1/64, and 1/32."""
    pair = {"best": trial("best", *range(count)), "other": trial("other", *range(9, 9 + count))}
    assert bool(losers([], pair, count)) == told


def test_the_best_of_earlier_generations_counts_on_the_contexts_that_both_saw():
    earlier = trial("earlier", *[0] * 6, 99)
    assert losers([earlier], {"one": trial("one", *[1] * 6)}, 6).keys() == {"one"}
    short = trial("short", 0, 0)
    assert losers([short], {"one": trial("one", *[1] * 6)}, 6) == {}


def test_a_trial_meets_the_best_of_those_that_spend_no_more():
    spends = {"cheap": (0.1,), "dear": (0.5,), "dearer": (0.6,)}
    values = {"cheap": [3] * 6, "dear": [1] * 6, "dearer": [2] * 6}
    trials = {name: trial(name, *values[name]) for name in values}
    found = losers([], trials, 6, lambda one: spends[one.overrides[0]])
    assert found.keys() == {"dearer"}


def test_no_infeasible_trial_beats_a_feasible_one():
    pair = {"within": trial("within", *[1] * 6), "beyond": trial("beyond", *[0] * 6, feasible=False)}
    assert losers([], pair, 6) == {}
    alone = {"one": trial("one", *[1] * 6, feasible=False), "beyond": pair["beyond"]}
    assert losers([], alone, 6).keys() == {"one"}


@given(st.lists(st.lists(st.floats(0, 10), min_size=6, max_size=6), max_size=5))
def test_the_best_and_its_equals_always_go_on_in_any_order(rows):
    trials = {str(number): trial(str(number), *values) for number, values in enumerate(rows)}
    found = losers([], trials, 6)
    lowest = min((math.fsum(one.each.values()) for one in trials.values()), default=None)
    assert all(math.fsum(trials[key].each.values()) > lowest for key in found)
    assert losers([], dict(reversed(trials.items())), 6).keys() == found.keys()


def test_without_values_nobody_is_compared():
    assert losers([], {}, 4) == {}
    lost = replace(trial("lost"), each={})
    assert losers([], {"lost": lost, "other": trial("other", *[1] * 6)}, 6) == {}


def test_a_race_finds_the_best_of_all_and_losers_see_fewer_contexts():
    work, whole = Arithmetic(), Arithmetic()
    study, full = run(*RACE, work=work, count=COUNT), run(*RACE, "scheduler=none", work=whole, count=COUNT)
    assert study.best.overrides == full.best.overrides
    assert study.best.value == full.best.value
    assert study.best.contexts == COUNT
    pruned = [one for one in study.trials if one.state == "pruned"]
    assert len(pruned) > len(study.trials) / 2
    assert all(one.contexts in (6, 12) and "the best so far has" in one.reason for one in pruned)
    spent = [sum(stacks * contexts for stacks, contexts in one.asked) for one in (work, whole)]
    assert spent[0] < spent[1] / 1.5


def test_close_trials_see_more_contexts_than_clear_losers():
    """Pages of 32 differ from context to context as to which bits are better; all others are far behind."""

    def close(quest, text):
        return kl(quest, text) if quest.page_size != 32 else (len(text) * quest.label_bits % 7) / 1000

    study = run(*RACE, work=Arithmetic(kl=close), count=COUNT)
    near = [one.contexts for one in study.trials if "page_size=32" in one.overrides[0]]
    far = [one.contexts for one in study.trials[1:] if "page_size=32" not in one.overrides[0]]
    assert sum(near) / len(near) > 1.5 * sum(far) / len(far)


def test_the_same_race_again():
    assert figures(run(*RACE, count=COUNT)) == figures(run(*RACE, count=COUNT))


def test_the_promoted_spread_over_those_who_lost_too():
    study = run(*RACE, "search.promote=1", "search.calibrate=4", count=COUNT)
    dear = {one.overrides for one in study.trials if one.fidelity == "generate"}
    assert {one.state for one in study.trials if one.overrides in dear and one.fidelity == "teacher"} > {"complete"}
    assert study.tau.n == len(dear)
    assert study.tau.tau > 0.9
