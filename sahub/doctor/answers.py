"""Dense answers to a doctor's questions: a batch at a time, with the cores of this machine that are free."""

import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from sahub.doctor import batched
from sahub.engine.evaluate import Plan, answer_of, evaluate
from sahub.engine.model import Model
from sahub.engine.outcome import Outcome, out_of_time
from sahub.engine.requests import Request, limit
from sahub.engine.session import Attention, Session
from sahub.results.validate import accuracy, graded


def dense(session: Session, requests: Sequence[Request], plan: Plan, enough: float | None = None) -> Outcome:
    """The model's own answers with their scores, `failed` with the reason where it gives none.

    With `enough`, no further batch is asked once the interval of the accuracy lies on one side of it.

    Questions that share a context, and models with layers that do not attend to the whole past, take the road of a run,
    one after the other.
    """
    apart = all(len(request.question_ids) == 1 for request in requests)
    with free_cores():
        if not apart or not batched.fits(session.model):
            [outcome] = evaluate(session, requests, [Attention()], plan)
            return outcome
        outcome = Outcome(attention=Attention())
        try:
            _answer(session.model, requests, plan, outcome, enough)
        except Exception as error:  # noqa: BLE001  (a model of another family may raise anything)
            first = (str(error).splitlines() or ["no message"])[0]
            outcome.state, outcome.reason = "failed", f"{type(error).__name__}: {first}"
    return outcome


def _answer(model: Model, requests: Sequence[Request], plan: Plan, outcome: Outcome, enough: float | None) -> None:
    begin, left = time.monotonic(), list(requests)
    longest = max(_length(request) + request.room(plan.max_new_tokens) for request in requests)
    size = batched.size_of(model, longest)
    while left and not _is_decided(outcome, enough):
        batch, left = sorted(left[:size], key=_length), left[size:]
        prompts = [
            batched.Prompt(
                ids=request.context_ids + request.question_ids[0],
                max_new_tokens=limit(request.example.questions[0], plan.max_new_tokens),
                line_stop=request.line_stop,
            )
            for request in batch
        ]
        found = batched.answers(model, prompts)
        outcome.seconds = time.monotonic() - begin
        outcome.answers += [
            answer_of(model, one, one.example.questions[0], plan, ids, measures={}, n_new=len(ids), seconds=0.0)
            for one, ids in zip(batch, found, strict=True)
        ]
        if outcome.seconds > plan.timeout_s:
            outcome.state, outcome.reason = "failed", out_of_time(plan.timeout_s)
            return


def _is_decided(outcome: Outcome, enough: float | None) -> bool:
    """Whether the accuracy so far is surely above or below `enough`."""
    if enough is None or not graded(outcome):
        return False
    known = accuracy(outcome)
    return known.low > enough or known.high < enough


def _length(request: Request) -> int:
    return len(request.context_ids) + len(request.question_ids[0])


@contextmanager
def free_cores() -> Iterator[None]:
    """As many CPU threads as there are cores that nobody else uses; afterwards as many as before.

    Threads wait for each other at every product, so one that shares its core costs more than it brings.
    """
    before = torch.get_num_threads()
    here = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    others = max(0.0, os.getloadavg()[0] - 1) if hasattr(os, "getloadavg") else 0.0
    torch.set_num_threads(max(before, here - round(others)))
    try:
        yield
    finally:
        torch.set_num_threads(before)
