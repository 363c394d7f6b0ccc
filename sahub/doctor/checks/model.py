"""Examine a model: its parts, whether it can be made sparse, how well it answers densely, and what it costs here."""

import logging
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import groupby
from typing import Any

from sahub.config.cell import Cell
from sahub.doctor import anatomy, answers, costs, selfcheck
from sahub.doctor.questions import asked_of
from sahub.doctor.report import Report, Rows
from sahub.engine.requests import Prepared, load
from sahub.engine.routing import attention_modules
from sahub.engine.session import Session
from sahub.errors import SahubError
from sahub.models.reading import read_config
from sahub.models.supported import check_supported
from sahub.models.weights import locate
from sahub.progress import Display
from sahub.report.columns import percent
from sahub.results.validate import accuracy, interval
from sahub.search.trial import attention_of, plan_of

SUBJECT = "model"
log = logging.getLogger(__name__)


def check(cell: Cell, report: Report) -> None:
    """Add what can be found out, cheapest first. Raises what stands in the way of more."""
    settings = cell.settings.model
    config = read_config(settings.path, settings.revision, settings.trust_remote_code)
    shape = anatomy.architecture(config)
    report.add("architecture", shape, anatomy.architecture_rows(shape))
    check_supported(config, locate(settings.path))
    empty = anatomy.skeleton(config, cell.choices.model, trust_remote_code=settings.trust_remote_code)
    attention_modules(empty)
    with Display({"doctor": 4}, "checks") as display:
        with display.steps("doctor", "load"):
            model = load(cell)
        held, words = anatomy.weights(model, empty.num_parameters()), anatomy.tokenizer(model)
        report.add("weights", held, anatomy.weights_rows(held))
        report.add("tokenizer", words, anatomy.tokenizer_rows(words))
        attention, builder = replace(attention_of(cell, ()), measure=0), cell.choices.builder
        with display.steps("doctor", "sparse path"):
            path = selfcheck.sparse_path(model, attention)
        report.add("sparse path", path, selfcheck.rows(path, builder))
        report.problems += selfcheck.problems(path)
        asked = asked_of(cell)
        with display.steps("doctor", "dense accuracy", "tasks") as step:
            step.total = len(asked)
            found = accuracies(Session(model), asked, step)
        report.add("dense accuracy", found, accuracy_rows(found))
        with display.steps("doctor", "costs"):
            spent = costs.costs(model, attention, cell.settings.doctor.timing_tokens)
        report.add("costs", spent, costs.rows(spent, builder))
    judge(report, cell.settings.doctor.enough)


def accuracies(session: Session, asked: Sequence[Cell], step: Callable[[], None]) -> list[dict[str, Any]]:
    """Dense accuracy of every task and length, with its interval, or the reason why there is none."""
    prepared, found = Prepared(session.model), []
    for cell in asked:
        length = cell.settings.search.max_context_length
        row: dict[str, Any] = {"task": cell.choices.task, "length": length, "n": 0, "score": None, "reason": ""}
        if length > session.model.max_context_length:
            most = session.model.max_context_length
            row["reason"] = f"longer than the {most:,} tokens that the model reads; model.max_context_length raises it"
        else:
            row |= _answered(session, cell, prepared)
        log.info("task=%s length=%d n=%d score=%s %s", row["task"], length, row["n"], row["score"], row["reason"])
        found.append(row)
        step()
    return found


def _answered(session: Session, cell: Cell, prepared: Prepared) -> dict[str, Any]:
    try:
        requests = prepared.requests(cell, "search")
    except SahubError as error:
        return {"reason": str(error)}
    plan = plan_of(cell, cell.settings.search, fidelity="generate")
    outcome = answers.dense(session, requests, plan, cell.settings.doctor.enough)
    if outcome.state != "complete":
        return {"reason": outcome.reason}
    return {"n": len(outcome.answers), "score": interval(accuracy(outcome)), "seconds": outcome.seconds}


def accuracy_rows(asked: Sequence[dict[str, Any]]) -> Rows:
    """A row per task for people."""
    rows = []
    for task, group in groupby(asked, key=lambda row: row["task"]):
        texts = [f"at {row['length']:,}: {row['reason'] or _share(row)}" for row in group]
        rows.append((task, "; ".join(texts)))
    return rows or [("nothing asked", "doctor.tasks or doctor.lengths is empty")]


def _share(row: dict[str, Any]) -> str:
    return f"{percent(row['score'])} % (n={row['n']})"


def judge(report: Report, enough: float) -> None:
    """What the model is good for, and what not, from the sections of its report."""
    path, spent, held, words = (report.facts[name] for name in ("sparse_path", "costs", "weights", "tokenizer"))
    layers, longest = report.facts["architecture"]["num_layers"], spent["largest_context_tokens"]
    report.good_for += [
        f"sparse attention in {path['sparse_layers']} of {layers} layers",
        f"contexts up to {longest:,} tokens (by size alone)",
    ]
    if longest < held["max_context_length"]:
        report.not_for.append((f"longer contexts, up to its {held['max_context_length']:,}", "memory holds no more"))
    if words["num_tokens"] > words["num_embeddings"]:
        why = f"its tokenizer has {words['num_tokens']:,} tokens and the model {words['num_embeddings']:,} embeddings"
        report.not_for.append(("texts with its last tokens", why))
    if words["thought_doubt"]:
        report.not_for.append(("short answers without a thought", words["thought_doubt"]))
    for task, group in groupby(report.facts["dense_accuracy"], key=lambda row: row["task"]):
        rows = list(group)
        good = [row for row in rows if row["score"] and row["score"]["mean"] >= enough]
        if good:
            report.good_for.append(f"{task} at {_lengths(good)}")
        low = [row for row in rows if row["score"] and row not in good]
        if low:
            shares = " and ".join(dict.fromkeys(f"{percent(row['score'])} %" for row in low))
            why = f"its dense accuracy of {shares} is too low to tell methods apart"
            report.not_for.append((f"{task} at {_lengths(low)}", why))
        for why, unasked in groupby((row for row in rows if row["reason"]), key=lambda row: row["reason"]):
            report.not_for.append((f"{task} at {_lengths(list(unasked))}", why))


def _lengths(rows: Sequence[dict[str, Any]]) -> str:
    return " and ".join(f"{row['length']:,}" for row in rows)
