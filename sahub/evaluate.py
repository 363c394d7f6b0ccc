"""Examples x stacks -> measures: the loop that search and validation share.

Contexts are the outer loop, so that each is prefilled once and its dense answers are made once for all stacks.
"""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sahub import metrics, scores
from sahub.errors import RunError
from sahub.prepare import Request, limit
from sahub.session import Attention, Run, Session


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is measured of every answer, and within which limits."""

    task: str
    metric: str | None = None
    generate: bool = False  # answers are generated with the stack, not only forced
    max_new_tokens: int | None = None  # None: each question's own
    timeout_s: float = math.inf  # of one stack over all requests


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question answered: what `raw_results.csv` has a line for."""

    example_id: str
    question_id: str
    question: str
    answer: str
    references: tuple[str, ...]
    score: float | None
    answer_kl: float
    answer_nll: float
    n_context: int
    n_new: int
    seconds: float


@dataclass
class Outcome:
    """One stack over the requests: `complete` with answers and micro rows, or `failed` with a reason."""

    attention: Attention
    state: str = "complete"
    reason: str = ""
    details: str = ""  # a traceback, for the file beside the trial
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    micro: list[dict[str, Any]] = field(default_factory=list)
    num_keys: int = 0  # of the shortest context
    aux_bits: float = 0.0
    num_layers: int = 0  # of the model

    def measures(self) -> dict[str, float]:
        """Means over questions; attention error over layers, then examples; densities weighted by rows."""
        found = {
            "answer_kl": fmean(answer.answer_kl for answer in self.answers),
            "answer_nll": fmean(answer.answer_nll for answer in self.answers),
            "density": weighted(self.micro, "density"),
            "density_all_layers": self._over_all_layers(weighted(self.micro, "density")),
            "kv_density": weighted(self.micro, "kv_density"),
            "aux_bits": self.aux_bits,
        }
        errors = metrics.error_by_example(self.micro)
        if errors:
            found["attention_error"] = fmean(errors.values())
        graded = [answer.score for answer in self.answers if answer.score is not None]
        if graded:
            found["benchmark_score"] = fmean(graded)
        bad = [f"{name} is {number}" for name, number in found.items() if not math.isfinite(number)]
        if bad:
            raise RunError(f"not a finite number: {', '.join(bad)}")
        return found

    def _over_all_layers(self, density: float) -> float:
        """The density where layers that stay dense count as 1."""
        sparse = len({row["layer"] for row in self.micro})
        return (density * sparse + self.num_layers - sparse) / self.num_layers


def evaluate(
    session: Session,
    requests: Sequence[Request],
    attentions: Sequence[Attention],
    plan: Plan,
    on_request: Callable[[], None] = lambda: None,
) -> list[Outcome]:
    """Run every stack over all requests; a stack that fails is out, with its cause, and costs the others nothing."""
    outcomes = [Outcome(attention=attention) for attention in attentions]
    for request in requests:
        for outcome in outcomes:
            if outcome.state == "complete":
                _attempt(session, request, outcome, plan)
        on_request()
    return outcomes


def _attempt(session: Session, request: Request, outcome: Outcome, plan: Plan) -> None:
    """One context with one stack: the only place where any exception ends in a state."""
    begin = time.monotonic()
    try:
        _answer_all(session, request, outcome, plan, deadline=begin + plan.timeout_s - outcome.seconds)
    except Exception as error:  # noqa: BLE001
        lines = str(error).splitlines()
        outcome.state, outcome.reason = "failed", f"{type(error).__name__}: {lines[0] if lines else 'no message'}"
        outcome.details = traceback.format_exc()
    outcome.seconds += time.monotonic() - begin
    if outcome.state == "complete" and outcome.seconds > plan.timeout_s:
        outcome.state, outcome.reason = "failed", f"timeout: longer than {plan.timeout_s:g} s"


def _answer_all(session: Session, request: Request, outcome: Outcome, plan: Plan, deadline: float) -> None:
    attention, geometry = outcome.attention, session.model.geometry
    prefix = session.prefix(request.context_ids, request.room(plan.max_new_tokens))
    length = len(request.context_ids)
    outcome.num_layers = geometry.num_layers
    outcome.num_keys = min(outcome.num_keys or length, length)
    if attention.stack is not None:
        outcome.aux_bits = max(outcome.aux_bits, attention.stack.aux_bits(geometry, length))
    for ids, question in zip(request.question_ids, request.example.questions, strict=True):
        most = limit(question, plan.max_new_tokens)
        dense = session.dense_answer(prefix, request.context_ids, ids, max_new_tokens=most)
        forced = generated = dense
        if attention.stack is not None:
            forced = session.force(prefix, list(ids), dense.ids, attention)
            generated = forced
            if plan.generate:
                generated = session.generate(prefix, list(ids), attention, max_new_tokens=most, deadline=deadline)
        prediction = session.model.decode(generated.ids) if plan.generate or attention.stack is None else None
        outcome.answers.append(
            Answer(
                example_id=request.example.id,
                question_id=question.id,
                question=f"{question.text}\n{question.answer_prefix}".strip(),
                answer=prediction or "",
                references=question.references,
                score=None
                if prediction is None
                else scores.score(plan.task, prediction, question.references, metric=plan.metric),
                answer_kl=metrics.answer_kl(dense.logits, forced.logits),
                answer_nll=metrics.answer_nll(forced.logits, dense.ids),
                n_context=length,
                n_new=len(generated.ids),
                seconds=generated.seconds,
            )
        )
        outcome.micro += micro_rows(generated, request.example.id, question.id, geometry.num_layers, len(ids))


def micro_rows(run: Run, example: str, question: str, num_layers: int, chunk: int) -> list[dict[str, Any]]:
    """One row per sparse layer and phase: rows, e, density, kv_density, selected keys; a dense run has density 1."""
    where = {"example": example, "question": question}
    if run.hook is None:
        sizes = {"question": chunk, "decode": len(run.ids) - 1}
        full = {"error": 0.0, "norm": 1.0, "e": 0.0, "density": 1.0, "kv_density": 1.0, "selected": None}
        return [
            {**where, "layer": layer, "phase": phase, "rows": rows, **full}
            for layer in range(num_layers)
            for phase, rows in sizes.items()
            if rows
        ]
    return [
        {**where, "layer": layer, "phase": phase, **tally.summary()}
        for (layer, phase), tally in sorted(run.hook.tallies.items())
    ]


def weighted(micro: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a column of micro rows, weighted by the attention rows that each stands for."""
    rows = sum(row["rows"] for row in micro)
    return float(sum(row[name] * row["rows"] for row in micro) / rows)
