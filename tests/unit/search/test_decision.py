"""The last decision: the winner or the default, on contexts that chose neither."""

import logging

import pytest
from arithmetic import PINNED, Arithmetic, figures, kl, requests, run

from sahub.data.division import divided, first_questions
from sahub.data.examples import Example, Question

DECIDED = [*PINNED, "search.num_samples=30", "search.decide=4"]
FRESH = "o"  # what contexts that decide are made of


def decided(*overrides, **formulas):
    return run(*DECIDED, *overrides, work=Arithmetic(**formulas), deciding=requests(4, FRESH))


def is_default(trial) -> bool:
    return "page_size=16" in trial.overrides[0] and "label_bits=4" in trial.overrides[1]


def test_a_winner_that_is_no_worse_elsewhere_stays_one():
    study = decided()
    assert study.decision.stays == ""
    assert study.best.overrides == study.decision.winner.overrides
    assert (study.decision.winner.contexts, study.decision.default.contexts) == (4, 4)
    assert study.decision.winner.fidelity == "generate"
    assert not is_default(study.best)


def test_the_default_stays_where_the_winner_is_worse_on_other_contexts():
    def lucky(quest, text):
        return kl(quest, text) if FRESH not in text else 1 - kl(quest, text)

    study = decided(kl=lucky, score=lambda quest, text: 1.0)
    assert is_default(study.best)
    assert study.best == study.default
    assert "value" in study.decision.stays
    assert "on 4 further contexts" in study.decision.stays


def test_the_default_stays_where_the_winner_answers_fewer_questions():
    def harmed(quest, text):
        return float(FRESH not in text or quest.page_size == 16)

    study = decided("search.promote=2", score=harmed)
    assert is_default(study.best)
    assert study.decision.stays == "accuracy 0.0 % against 100.0 % on 4 further contexts"
    assert study.generated.overrides == study.default.overrides


def test_a_winner_that_fails_there_or_exceeds_its_targets_is_none():
    def broken(quest, text):
        return FRESH in text and quest.page_size != 16

    assert decided(broken=broken).decision.stays == "the winner ended as failed: broken on o"
    study = decided(density=lambda quest, text: 0.2 if broken(quest, text) else 0.1)
    assert study.decision.stays == "the winner exceeds its targets on 4 further contexts"


def test_a_default_that_cannot_win_decides_nothing():
    study = decided(density=lambda quest, text: 0.2 if quest.page_size == 16 else 0.1)
    assert study.decision is None
    assert not is_default(study.best)
    broken = decided(broken=lambda quest, text: FRESH in text)
    assert broken.decision.stays == ""


def test_a_best_trial_that_is_the_default_needs_no_decision():
    study = decided(kl=lambda quest, text: abs(quest.page_size - 16) + abs(quest.label_bits - 4))
    assert is_default(study.best)
    assert study.decision is None


def test_contexts_that_decide_change_no_trial():
    assert figures(decided()) == figures(run(*DECIDED))


@pytest.mark.parametrize(("questions", "deciding"), [(5, 3), (3, 5), (100, 100), (7, 0), (1, 1)])
@pytest.mark.parametrize("per_context", [1, 3])
@pytest.mark.parametrize("count", [1, 2, 9])
def test_no_context_both_chooses_and_decides(questions, deciding, per_context, count):
    asked = tuple(Question(id=str(i), text="?", references=("a",), max_new_tokens=1) for i in range(per_context))
    some = [Example(id=str(number), context=f"text {number // 2}", questions=asked) for number in range(count)]
    chosen, fresh = divided(some, questions, deciding)
    texts = [[one.context for one in part] for part in (chosen, fresh)]
    assert chosen
    assert not set(texts[0]) & set(texts[1])
    assert len(texts[1]) == len(set(texts[1])) <= deciding
    assert sum(len(one.questions) for one in chosen) <= questions
    assert all(len(one.questions) == 1 for one in fresh)
    if not deciding:
        assert chosen == first_questions(some, questions)


def test_half_of_too_few_contexts_decide():
    asked = (Question(id="0", text="?", references=("a",), max_new_tokens=1),)
    some = [Example(id=str(number), context=f"text {number}", questions=asked) for number in range(9)]
    assert [len(part) for part in divided(some, 32, 16)] == [5, 4]
    assert [len(part) for part in divided(some, 32, 2)] == [7, 2]
    assert [len(part) for part in divided(some, 3, 2)] == [3, 2]


def test_too_few_contexts_are_said(caplog):
    with caplog.at_level(logging.WARNING):
        run(*DECIDED, deciding=requests(3, FRESH))
    assert "too few contexts: 9 for search, 3 of them to decide, where search.decide=4" in caplog.text
