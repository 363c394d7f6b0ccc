"""Points measured in rounds: all on the first contexts, then those that go on, on further ones."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from itertools import chain
from typing import Any

from sahub.compute.worker import Batch, Work
from sahub.engine.outcome import Outcome, joined
from sahub.engine.requests import Request
from sahub.engine.session import Attention
from sahub.search.scope import Part, over_tasks
from sahub.search.trial import Trial, judge, plan_of

Overrides = tuple[str, ...]
Losers = Callable[[Mapping[Overrides, Trial], int], Mapping[Overrides, str]]  # trials after so many contexts -> reasons


def no_losers(trials: Mapping[Overrides, Trial], contexts: int) -> Mapping[Overrides, str]:
    """Everybody goes on."""
    return {}


def measured(
    parts: Sequence[Part],
    stacks: Mapping[Overrides, Attention],
    fidelity: str,
    rungs: Sequence[int] = (),
    losers: Losers = no_losers,
    *,
    until: float = math.inf,
) -> Work[dict[Overrides, Trial]]:
    """The trial of every stack over the requests of every part.

    After each number of contexts in `rungs` (of each part), `losers` says who ends there, and why, from what was
    measured so far. A stack that fails on one part is not run on the others. What is not done by `until`, of
    `time.monotonic()`, is pruned.
    """
    done: dict[Overrides, list[list[Outcome]]] = {one: [[] for _ in parts] for one in stacks}
    values: dict[Overrides, dict[int, Any]] = {one: {} for one in stacks}
    ended: dict[Overrides, Trial] = {}
    most, begin = max(len(part.requests) for part in parts), 0
    for end in [*rungs, most]:
        running = [one for one in stacks if one not in ended]
        for number, part in enumerate(parts):
            going = {one: stacks[one] for one in running if all(past.state == "complete" for past in chain(*done[one]))}
            batch = replace(_batch(part, part.requests[begin:end], fidelity), until=until)
            outcomes = yield from _run(batch, going, [sum(past.seconds for past in chain(*done[one])) for one in going])
            for one, outcome in outcomes.items():
                done[one][number].append(outcome)
        begin = end
        judged = {one: _judged(parts, one, done[one], fidelity) for one in running}
        if rungs:
            judged = {one: replace(trial, each=_each(parts, one, done[one])) for one, trial in judged.items()}
        if end == most:
            ended |= judged
            break
        complete = {one: trial for one, trial in judged.items() if trial.value is not None}
        ended |= {one: trial for one, trial in judged.items() if one not in complete}
        for one, trial in complete.items():
            values[one] |= {end: trial.value}
        so_far = {one: replace(trial, rungs=values[one]) for one, trial in complete.items()}
        for one, reason in losers(so_far, end).items():
            ended[one] = _pruned(judged[one], reason)
    return {one: replace(ended[one], rungs=values[one]) for one in stacks}


def _batch(part: Part, requests: Sequence[Request], fidelity: str) -> Batch:
    """What is done on a part's requests; whose stacks do it is not said yet."""
    settings = part.cell.settings.search
    plan = plan_of(part.cell, settings, fidelity=fidelity)
    return Batch(requests=requests, attentions=(), plan=plan, max_concurrent=settings.max_concurrent)


def _run(batch: Batch, stacks: Mapping[Overrides, Attention], spent: Sequence[float]) -> Work[dict[Overrides, Outcome]]:
    if not batch.requests or not stacks:
        return {}
    outcomes = yield replace(batch, attentions=list(stacks.values()), spent=spent)
    return dict(zip(stacks, outcomes, strict=True))


def _judged(parts: Sequence[Part], overrides: Overrides, slices: Sequence[Sequence[Outcome]], fidelity: str) -> Trial:
    """The trial of what was measured so far."""
    found = []
    for part, outcomes in zip(parts, slices, strict=True):
        if outcomes:  # after a failure elsewhere there are none
            whole, limit = outcomes[0], part.cell.settings.search.timeout_s
            if len(outcomes) > 1:
                [whole] = joined([whole.attention], [[one] for one in outcomes], limit)
            found.append((part.cell.choices.task, judge(part.cell, overrides, whole, fidelity, part.costs)))
    return over_tasks(found) if len(parts) > 1 else found[0][1]


def _each(parts: Sequence[Part], overrides: Overrides, slices: Sequence[Sequence[Outcome]]) -> dict[str, float]:
    """The value in each context, as far as there is one."""
    found = {}
    for part, outcome in (
        (part, outcome) for part, outcomes in zip(parts, slices, strict=True) for outcome in outcomes
    ):
        for name in dict.fromkeys(answer.example_id for answer in outcome.answers):
            answers = [answer for answer in outcome.answers if answer.example_id == name]
            micro = [row for row in outcome.micro if row["example"] == name]
            there = judge(part.cell, overrides, replace(outcome, answers=answers, micro=micro), "", part.costs)
            if there.value is not None:
                found[f"{part.cell.choices.task} {name}"] = there.value
    return found


def _pruned(trial: Trial, reason: str) -> Trial:
    return replace(trial, state="pruned", reason=reason, value=None, feasible=None, measures={}, excess={}, tasks={})
