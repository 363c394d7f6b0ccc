"""Examples x stacks -> measures: the loop that search and validation share.

Contexts are the outer loop, so that each is prefilled once and its dense answers are made once for all stacks.
"""

import hashlib
import inspect
import math
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

from sahub import scores
from sahub.data.examples import Question
from sahub.engine import alarm, gold
from sahub.engine.forward import OutOfTime
from sahub.engine.micro_rows import micro_rows
from sahub.engine.model import Model
from sahub.engine.outcome import Answer, Outcome, out_of_time
from sahub.engine.requests import Request, limit
from sahub.engine.session import Attention, Session
from sahub.errors import memory_trouble
from sahub.fidelities import FIDELITIES, Asked
from sahub.files.journal import Journal, numbers_version
from sahub.measures import of_answer, of_trace

OVER = "time_budget_s: the search's time was over"
PLANNED = ("task", "metric", "fidelity", "traced", "explained")  # of a plan, in the keys of the journal


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of every answer, and within which limits."""

    task: str
    metric: str | None = None
    fidelity: str = "teacher"  # a module of sahub.fidelities
    traced: bool = False  # replayed too, for what only traces measure
    explained: bool = False  # of a question that dense answers better: which heads dropped the gold answer
    max_new_tokens: int | None = None  # None: each question's own
    timeout_s: float = math.inf  # of one stack over all requests


def evaluate(
    session: Session,
    requests: Sequence[Request],
    attentions: Sequence[Attention],
    plan: Plan,
    *,
    spent: Sequence[float] = (),
    until: float = math.inf,
    journal: Journal | None = None,
    on_request: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Run every stack over all requests; a stack that fails is out, with its cause, and costs the others nothing.

    What `journal` holds is not computed again; what is computed is kept there, a context at a time. `spent`: seconds
    that the stacks took before, of the plan's limit. `until`: when `time.monotonic()` passes it, all end as `pruned`.
    """
    before = list(spent) or [0.0] * len(attentions)
    outcomes = [Outcome(attention=one, seconds=seconds) for one, seconds in zip(attentions, before, strict=True)]
    for request in requests:
        for outcome in outcomes:
            if outcome.state == "complete" and time.monotonic() > until:
                outcome.state, outcome.reason = "pruned", OVER
            if outcome.state == "complete":
                _attempt(session, request, outcome, plan, until=until, journal=journal)
        on_request()
    for outcome, seconds in zip(outcomes, before, strict=True):
        outcome.seconds -= seconds
    return outcomes


ANSWER = {
    **dict.fromkeys(("example_id", "question_id", "question", "answer"), str), "references": [str], "metadata": dict,
    "score": (float, None), "measures": {str: float}, "n_context": int, "n_new": int, "seconds": float,
    "gold": (dict, None),
}  # fmt: skip
KEPT = {"answers": [ANSWER], "micro": [dict], "seconds": float}  # by the journal, of a context with a stack


def _attempt(
    session: Session, request: Request, outcome: Outcome, plan: Plan, *, until: float, journal: Journal | None
) -> None:
    """One context with one stack: the only place where any exception ends in a state."""
    begin = time.monotonic()
    length = len(request.context_ids)
    outcome.geometry = session.model.geometry
    outcome.key_bytes = 2 * session.model.geometry.head_dim * session.model.hf.dtype.itemsize
    outcome.num_keys = min(outcome.num_keys or length, length)
    try:
        if outcome.attention.stack is not None:
            outcome.aux_bits = max(outcome.aux_bits, outcome.attention.stack.aux_bits(session.model.geometry, length))
        key = _key(session, request, outcome.attention, plan) if journal else None
        kept = journal.get(key, KEPT) if journal and key else None
        if kept is not None:
            session.model.counters.served += 1
            rows = [{name: row[name] for name in ANSWER} for row in kept["answers"]]
            outcome.answers += [Answer(**{**row, "references": tuple(row["references"])}) for row in rows]
            outcome.micro += kept["micro"]
            outcome.seconds += kept["seconds"]
            return
        deadline = min(begin + plan.timeout_s - outcome.seconds, until)
        asked = request, outcome.attention, plan
        answers, micro, shared = session.within_memory(lambda lean: _answer_all(session, *asked, deadline, lean=lean))
        begin += shared
        outcome.answers += answers
        outcome.micro += micro
        session.model.counters.computed += 1
        if journal and key:
            journal.put(key, {"answers": answers, "micro": micro, "seconds": time.monotonic() - begin})
    except OutOfTime as error:
        late = ("pruned", OVER) if time.monotonic() > until else ("failed", out_of_time(plan.timeout_s, str(error)))
        outcome.state, outcome.reason = late
    except Exception as error:  # noqa: BLE001
        said = f"{type(error).__name__}: {(str(error).splitlines() or ['no message'])[0]}"
        outcome.state, outcome.reason = "failed", memory_trouble(error) or said
        outcome.details = traceback.format_exc()
    outcome.seconds += time.monotonic() - begin
    if outcome.state == "complete" and outcome.seconds > plan.timeout_s:
        outcome.state, outcome.reason = "failed", out_of_time(plan.timeout_s)


def _key(session: Session, request: Request, attention: Attention, plan: Plan) -> dict[str, Any] | None:
    """All that determines the answers of one context with one stack; None for a model that is not known by its files.

    The time limit is left out: what was finished within another one is finished.
    """
    model, stages = session.fingerprint, attention.stack.stages if attention.stack else ()
    if model is None:
        return None
    return {
        "numbers": numbers_version(),
        "model": model,
        "context": request.digest,
        "example": request.example.id,
        "questions": [
            [list(ids), one.id, list(one.references), dict(one.metadata), limit(one, plan.max_new_tokens)]
            for ids, one in zip(request.question_ids, request.example.questions, strict=True)
        ],
        "line_stop": request.line_stop,
        "attention": repr(attention),
        "stages": [_source(cast(Any, type(one))) for one in stages],
        "plan": [getattr(plan, name) for name in PLANNED],
    }


@cache
def _source(kind: Any) -> str:
    """A hash of the module that a stage was written in: it may be a person's own."""
    module = sys.modules.get(kind.__module__)
    if module is not None and getattr(module, kind.__qualname__, None) is kind:
        with suppress(OSError, TypeError):
            return hashlib.sha256(Path(inspect.getfile(module)).read_bytes()).hexdigest()[:16]
    return f"unknown source {uuid4()}"  # of a shell, or of another process's __main__: good for this process


def _answer_all(
    session: Session, request: Request, attention: Attention, plan: Plan, deadline: float, *, lean: bool = False
) -> tuple[list[Answer], list[dict[str, Any]], float]:
    """The answers to a context's questions, their micro rows, and the seconds of what a stack shares with others.

    Whichever stack comes first makes the prefix and the dense answers; that must not count as its own time.
    """
    begin, ids, is_stack = time.monotonic(), request.question_ids, attention.stack is not None
    prefix = session.prefix(request.context_ids, request.room(plan.max_new_tokens), len(ids[0]))
    shared = is_stack * (time.monotonic() - begin)
    fidelity, found = FIDELITIES[plan.fidelity], dict[int, tuple[Answer, list[dict[str, Any]]]]()
    batches = [[number] for number in range(len(ids))]
    if fidelity.TOGETHER and not lean:
        batches = session.batches(prefix, ids, attention)
    for numbers in batches:
        if found and time.monotonic() > deadline + shared:
            raise OutOfTime(f"after {len(found)} of {len(ids)} questions of a context")
        asked = []
        for number in numbers:
            begin, most = time.monotonic(), limit(request.example.questions[number], plan.max_new_tokens)
            ends: dict[str, Any] = {
                "max_new_tokens": most,
                "line_stop": request.line_stop,
                "deadline": deadline + shared,
            }
            dense = session.dense_answer(prefix, request.context_ids, ids[number], **ends)
            asked.append(Asked(prefix=prefix, question=list(ids[number]), dense=dense, attention=attention, ends=ends))
            shared += is_stack * (time.monotonic() - begin)
        late = [replace(one, ends={**one.ends, "deadline": deadline + shared}) for one in asked]
        runs = fidelity.answers(session, late) if is_stack else [(one.dense, one.dense) for one in asked]
        for number, one, (forced, answered) in zip(numbers, asked, runs, strict=True):
            found[number] = _judged(session, request, plan, one, number=number, forced=forced, answered=answered)
    every = [found[number] for number in sorted(found)]
    return [answer for answer, _ in every], [row for _, rows in every for row in rows], shared


def _judged(
    session: Session, request: Request, plan: Plan, asked: Asked, *, number: int, forced: Any, answered: Any
) -> tuple[Answer, list[dict[str, Any]]]:
    """The answer to a question with what was measured of it, and its micro rows."""
    question, dense, attention = request.example.questions[number], asked.dense, asked.attention
    last = answered or forced
    found = {} if forced.logits is None else of_answer(dense.logits, forced.logits, dense.ids)
    if forced.logits is not None:
        alarm.check(attention, found["answer_kl"], session.model.hf.dtype)
    if plan.traced and attention.stack is not None:
        bare = replace(attention, measure=0)  # its errors are not read
        traced = session.replay(asked.prefix, asked.question, dense.ids, bare) if forced.logits is not None else forced
        found |= of_trace(traced.tallies)
    costs = {"measures": found, "n_new": len(last.ids), "seconds": last.seconds}
    made = answer_of(session.model, request, question, plan, None if answered is None else answered.ids, **costs)
    if plan.explained and answered is not dense and made.score is not None:
        right = score_of(plan, question, session.model.decode(list(dense.ids)))
        if right is not None and right > made.score:
            made = replace(made, gold=gold.dropped(session, asked, request.context_ids, question.references))
    layers = session.model.geometry.layers
    return made, micro_rows(last, request.example.id, question.id, layers, len(asked.question))


def answer_of(
    model: Model, request: Request, question: Question, plan: Plan, ids: Sequence[int] | None, **rest: Any
) -> Answer:
    """An answer of these ids with its score: none where nothing was generated, or nobody knows what is right.

    `rest`: measures, n_new and seconds, as Answer has them.
    """
    prediction = None if ids is None else model.decode(list(ids))
    return Answer(
        example_id=request.example.id,
        question_id=question.id,
        question=f"{question.text}\n{question.answer_prefix}".strip(),
        answer=prediction or "",
        references=question.references,
        metadata=question.metadata,
        score=None if prediction is None else score_of(plan, question, prediction),
        n_context=len(request.context_ids),
        **rest,
    )


def score_of(plan: Plan, question: Question, prediction: str) -> float | None:
    """None where nobody knows what is right."""
    if not question.references:
        return None
    classes = question.metadata.get("all_classes")
    return scores.score(plan.task, prediction, question.references, classes=classes, metric=plan.metric)
