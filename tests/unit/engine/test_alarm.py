"""A stack that keeps every key answers as the model does, or its run fails by name."""

import pytest
import torch

import sahub
from sahub.data.examples import Example, Question, example_id
from sahub.engine import alarm
from sahub.engine.call_stats import Inputs
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.requests import prepare
from sahub.engine.session import Attention, Session
from sahub.errors import DenseDiffers

DENSE = Attention(stack=sahub.build_stack([{"name": "dense"}]), measure=0)
SPARSE = Attention(stack=sahub.build_stack([{"name": "local", "window_size": 16}]), measure=0)


@pytest.fixture
def asked(chat):
    question = Question(id="0", text="\nWhy?", references=("x",), max_new_tokens=6)
    context = "Some words. " * 20
    example = Example(id=example_id(context), context=context, questions=(question,))
    return prepare(chat, [example], max_context_length=600, max_new_tokens=None, truncation="middle")


@pytest.mark.parametrize("fidelity", ["teacher", "generate"])
def test_dense_is_dense(chat, asked, fidelity):
    found = evaluate(Session(chat), asked, [DENSE, SPARSE], Plan(task="ruler/vt", fidelity=fidelity))
    assert [outcome.state for outcome in found] == ["complete", "complete"]
    assert found[0].answers[0].measures["answer_kl"] < 1e-6


def test_a_dense_stack_that_is_not_dense_fails_by_name(chat, asked, monkeypatch):
    right = Inputs.sparse
    monkeypatch.setattr(Inputs, "sparse", lambda self, selection: right(self, selection) * 1.5)
    dense, sparse = evaluate(Session(chat), asked, [DENSE, SPARSE], Plan(task="ruler/vt", fidelity="teacher"))
    assert (dense.state, sparse.state) == ("failed", "complete")
    assert dense.reason.startswith("DenseDiffers: every key was kept, and the answers differ from the model's own")


def test_what_rounding_explains_is_no_alarm():
    for dtype, allowed in alarm.ALLOWED.items():
        alarm.check(DENSE, allowed / 2, dtype)
        alarm.check(SPARSE, 9.0, dtype)
        alarm.check(Attention(), 9.0, dtype)
        for number in (2 * allowed, float("nan"), float("inf")):
            with pytest.raises(DenseDiffers):
                alarm.check(DENSE, number, dtype)
    with pytest.raises(DenseDiffers):
        alarm.check(DENSE, 1.0, torch.float64)
