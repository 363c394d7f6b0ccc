"""Between what a task's scores can move: a gold answer, dense answers, answers without the context, an empty one."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

from sahub import scores
from sahub.config.cell import Cell
from sahub.data.division import first_questions
from sahub.data.examples import Example, Question, TaskSpec
from sahub.doctor import answers
from sahub.doctor.report import Rows
from sahub.engine.model import Model
from sahub.engine.outcome import Outcome
from sahub.engine.requests import prepare_under
from sahub.engine.session import Session
from sahub.errors import RunError
from sahub.models.weights import spec_of
from sahub.report.columns import percent
from sahub.results.validate import accuracy, difference, interval
from sahub.search.trial import plan_of


def found(cell: Cell, model: Model, examples: Sequence[Example]) -> dict[str, Any]:
    """Scores of a sample of the contexts that searches use. Raises RunError where the model cannot answer."""
    sample = first_questions(examples, cell.settings.doctor.requests)
    session, spec = Session(model), spec_of(cell)
    dense = _answered(cell, session, sample)
    nothing = "" if model.context_ids("") else "\n"
    blind = _answered(cell, session, [replace(example, context=nothing) for example in sample])
    asked = [question for example in sample for question in example.questions]
    return {
        "n": len(asked),
        "gold": fmean(ceiling(spec, one) for one in asked),
        "dense": interval(accuracy(dense)),
        "without_context": interval(accuracy(blind)),
        "empty": fmean(_score(spec, one, "") for one in asked),
        "dense_minus_without_context": interval(difference(dense, blind)),
        "seconds": dense.seconds,
    }


def _answered(cell: Cell, session: Session, examples: Sequence[Example]) -> Outcome:
    limits = replace(cell.settings.search, max_new_tokens=cell.settings.doctor.max_new_tokens)
    requests = prepare_under(session.model, examples, cell.settings.protocol, limits)
    outcome = answers.dense(session, requests, plan_of(cell, limits, fidelity="generate"))
    if outcome.state != "complete":
        raise RunError(f"the model's own answers: {outcome.reason}")
    return outcome


def ceiling(spec: TaskSpec, question: Question) -> float:
    """The best score that gold answers get: one of them or all together, bare or in words that a metric looks for."""
    texts = [str(text) for text in question.references]
    forms = ("{}", "{}.", "The correct answer is ({})")
    return max(_score(spec, question, form.format(text)) for text in [*texts, " ".join(texts)] for form in forms)


def _score(spec: TaskSpec, question: Question, answer: str) -> float:
    classes = question.metadata.get("all_classes")
    return scores.score(spec.name, answer, question.references, classes=classes, metric=spec.metric)


def rows_of(facts: Mapping[str, Any]) -> Rows:
    """The scores for people."""
    n = f"(n={facts['n']})"
    return [
        ("a gold answer", f"{100 * facts['gold']:.1f} %"),
        ("dense", f"{percent(facts['dense'])} % {n}"),
        ("without context", f"{percent(facts['without_context'])} % {n}"),
        ("an empty answer", f"{100 * facts['empty']:.1f} %"),
    ]


def doubts(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Where the model's own answers are at the floor, or gold ones below the ceiling."""
    told, apart = [], facts["dense_minus_without_context"]
    floor = max(facts["empty"], facts["without_context"]["mean"])
    if facts["dense"]["mean"] <= floor or apart["low"] <= 0:
        why = (
            f"the dense score of {percent(facts['dense'])} % is not surely above the {100 * floor:.1f} % that answers "
            "without the context get"
        )
        told.append(("telling methods apart", why))
    if facts["gold"] < 0.999:
        told.append(("full marks", f"even gold answers score only {100 * facts['gold']:.1f} %"))
    return told
