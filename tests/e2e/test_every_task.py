"""Every task, end to end in one process: two examples of its data, the embedded model, the official score."""

from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from task_rows import CONF, fixture, spec

from sahub import scores
from sahub.data.examples import TaskSpec
from sahub.data.loading import load_examples
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.requests import Request, prepare
from sahub.engine.session import Attention, Session

FOLDER = CONF / "task"
NAMES = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))
GENERATED = [name for name in NAMES if "num_examples" in spec(name).options and "file" not in spec(name).options]
MOST = 6  # tokens of an answer
pytestmark = pytest.mark.slow


@cache
def session() -> Session:
    import torch

    from sahub.engine.model import load_model

    torch.set_num_threads(1)
    return Session(load_model("embedded"))


def requests(task: TaskSpec) -> list[Request]:
    model = session().model
    examples = load_examples(
        task, split="validate", limit=2, length=600, count_tokens=model.count_tokens, seed=0, at_least=2
    )
    return prepare(model, examples, max_context_length=700, max_new_tokens=MOST, truncation="middle")


def answered(task: TaskSpec) -> None:
    """Two questions are answered and scored, one by one and together."""
    asked = requests(task)
    plan = Plan(task=task.name, metric=task.metric, fidelity="generate", max_new_tokens=MOST)
    [outcome] = evaluate(session(), asked, [Attention()], plan)
    assert (outcome.state, outcome.reason) == ("complete", "")
    questions = [question for request in asked for question in request.example.questions]
    assert len(outcome.answers) == len(questions) == 2
    assert all(0 <= answer.score <= 1 and 1 <= answer.n_new <= MOST for answer in outcome.answers)
    rows: list[dict[str, Any]] = [
        {"prediction": answer.answer, "references": answer.references, **question.metadata}
        for answer, question in zip(outcome.answers, questions, strict=True)
    ]
    found = scores.aggregate(task.name, rows)
    assert isinstance(found, float) or found


@pytest.mark.parametrize("name", NAMES)
def test_stored_data_are_answered_and_scored(name: str, tmp_path: Path) -> None:
    answered(spec(name, path=str(fixture(name, tmp_path))))


@pytest.mark.parametrize("name", GENERATED)
def test_generated_prompts_are_answered_and_scored(name: str) -> None:
    task = spec(name)
    budget = min(task.max_new_tokens, 200)  # the thirty thousand tokens of a sum's answer leave no room in 600
    answered(replace(task, max_new_tokens=budget, source="generated"))
