"""How many questions the doctor asks: until it is known on which side of `doctor.enough` the accuracy lies."""

import pytest

from sahub.data.examples import Example, Question, example_id
from sahub.doctor import answers, batched
from sahub.engine.evaluate import Plan
from sahub.engine.model import wrap_model
from sahub.engine.requests import prepare
from sahub.engine.session import Session

PLAN = Plan(task="ruler/niah_single_1", fidelity="generate", max_new_tokens=4)


@pytest.fixture(scope="module")
def session(make_model, tokenizer):
    return Session(wrap_model(make_model(), tokenizer, name="tiny"))


@pytest.fixture(scope="module")
def requests(session):
    texts = [f"text number {number}" for number in range(30)]
    asked = [Question(id="0", text="?", references=("7",), max_new_tokens=4)]
    examples = [Example(id=example_id(text), context=text, questions=tuple(asked)) for text in texts]
    return prepare(session.model, examples, max_context_length=100, max_new_tokens=4, truncation="middle")


@pytest.mark.parametrize(
    ("right", "enough", "asked"), [(1, 0.5, 10), (0, 0.5, 10), (2, 0.5, 30), (1, 0.9, 30), (1, None, 30)]
)
def test_no_more_is_asked_than_tells_on_which_side_the_accuracy_lies(
    right, enough, asked, session, requests, monkeypatch
):
    """`right` 1: all answers are, 2: every other one."""
    seven, eight = (session.model.encode(text) for text in "78")

    def said(model, prompts, is_over=None):
        return [seven if right and number % right == 0 else eight for number in range(len(prompts))]

    monkeypatch.setattr(batched, "answers", said)
    found = answers.dense(session, requests, PLAN, enough)
    assert found.state == "complete"
    assert len(found.answers) == asked
