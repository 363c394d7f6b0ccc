"""What a search tries: points as stacks, judged once they ran, each ending in a state."""

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sahub.attention.budgets import share_of
from sahub.builders.build import build_stack
from sahub.builders.space import Space, space_of
from sahub.config.cell import Cell
from sahub.config.settings import Search as SearchSettings
from sahub.config.settings import Validate as ValidateSettings
from sahub.engine.evaluate import Plan
from sahub.engine.outcome import Outcome
from sahub.engine.session import Attention
from sahub.errors import RunError
from sahub.models.weights import spec_of
from sahub.search.objective import DENSE_SECONDS, SECONDS, completed, excess_over, reads_traces, spent, value_of
from sahub.stats.intervals import Tau
from sahub.timing.costs import StepCosts

STATES = ("complete", "pruned", "rejected", "failed")
Limits = SearchSettings | ValidateSettings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point at one fidelity. Only `complete` has measures and a value; `rejected` never ran.

    rungs   contexts seen -> value, at each decision of a scheduler; what a `pruned` trial has
    each    context -> value there, where a scheduler compares trials
    excess  target -> what the measures exceed it by, 0 and less where it is met
    spent   share of the keys that the objective's target bounds: density, or kv_density with objective.budget_of=kv
    tasks   of a search over several: task -> value, feasible and measures there; those of the trial are their means
    """

    number: int = 0  # given when it is recorded
    state: str  # one of STATES
    fidelity: str
    overrides: tuple[str, ...]
    reason: str = ""
    details: str = ""
    feasible: bool | None = None
    value: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0
    contexts: int = 0  # that it was measured on
    point: Mapping[str, Any] = field(default_factory=dict)
    rungs: Mapping[int, float] = field(default_factory=dict)
    each: Mapping[str, float] = field(default_factory=dict)
    excess: Mapping[str, float] = field(default_factory=dict)
    spent: float = 1.0
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[float, float, float, tuple[str, ...]]:
        """Order of complete trials: value, then keys and index bits that are spent, and the text of the overrides."""
        value = math.inf if self.value is None else self.value
        return value, self.spent, self.measures.get("aux_bits", 0.0), self.overrides

    @property
    def last(self) -> float:
        """The value; of a trial that was pruned at a decision, the one it had there; infinite where there is none."""
        return list(self.rungs.values())[-1] if self.rungs and self.value is None else self.rank[0]


@dataclass(frozen=True, kw_only=True)
class Decision:
    """The winner of the trials and the default, generating on contexts that no trial has seen.

    stays  why the default stays; empty where the winner does
    """

    winner: Trial
    default: Trial
    stays: str


@dataclass(frozen=True, kw_only=True)
class Budgeted:
    """The winner for one budget of a frontier: judged under that target, and with answers forced on other contexts."""

    trial: Trial
    checked: Trial


@dataclass(frozen=True, kw_only=True)
class Study:
    """All trials of a cell, the winner, and how well the cheap fidelity predicted the dear one."""

    trials: tuple[Trial, ...]
    best: Trial | None
    default: Trial
    seconds: float
    generated: Trial | None = None  # the winner's, where it was promoted
    decision: Decision | None = None  # where the winner is not the default
    frontier: Mapping[str, Budgeted] = field(default_factory=dict)  # density_0.1 -> its winner, where several are asked
    tau: Tau | None = None
    regret: float | None = None

    def counts(self) -> dict[str, int]:
        """Number of points in each state, at the fidelity of the search: promoted ones are not counted twice."""
        points = [trial for trial in self.trials if trial.fidelity == self.trials[0].fidelity]
        return {state: sum(trial.state == state for trial in points) for state in STATES}


def by_rank(trials: Sequence[Trial]) -> list[Trial]:
    """The complete trials by rank; then those that were pruned at a decision, the more contexts they saw the better."""
    complete = sorted((trial for trial in trials if trial.state == "complete"), key=lambda trial: trial.rank)
    pruned = [trial for trial in trials if trial.state == "pruned" and trial.rungs]
    return [*complete, *sorted(pruned, key=lambda trial: (-trial.contexts, trial.last, trial.overrides))]


def attention_of(cell: Cell, overrides: Sequence[str]) -> Attention:
    """The stack of a cell's builder with these overrides, under the cell's protocol. Raises ConfigError."""
    settings = cell.settings
    tree = cell.builder_with(overrides)
    stack = build_stack(tree["stages"], density=budget_of(cell, tree["stages"]), address="builder.stages")
    every = settings.protocol.measure_error
    return Attention(
        stack=stack,
        dense_layers=settings.protocol.dense_layers,
        dense_question=settings.protocol.question == "dense",
        measure=int({"all": "1", "off": "0"}.get(every, every)),
        replay_rows=settings.protocol.replay_rows,
        trace_bytes=settings.protocol.trace_mib << 20,
        seed=settings.search.seed,
    )


def space_of_cell(cell: Cell) -> Space:
    """The cell's free fields: pinned ones are not, unless `search.pin` is false."""
    settings = cell.settings
    lengths = (settings.search.max_context_length, settings.task.length, settings.model.max_context_length)
    tokens = share_of(settings.objective.budget_max, min(length for length in lengths if length))
    return space_of(cell.builder, cell.is_pinned if settings.search.pin else lambda leaf: False, tokens)


def plan_of(cell: Cell, limits: Limits, *, fidelity: str) -> Plan:
    """What is measured of the cell's answers, within the limits of its search or of its validation."""
    task = spec_of(cell)
    return Plan(
        task=task.name,
        metric=task.metric,
        fidelity=fidelity,
        traced=reads_traces(cell.settings.objective),
        max_new_tokens=limits.max_new_tokens,
        timeout_s=limits.timeout_s,
    )


def budget_of(cell: Cell, stages: Mapping[str, Any]) -> float | None:
    """What `of_budget` sizes are shares of: the objective's budget, None where a stage has a density of its own."""
    written = [fields or {} for fields in stages.values()]
    written += [fields["select"] for fields in written if isinstance(fields.get("select"), Mapping)]
    of_its_own = any(fields.get(name) is not None for fields in written for name in ("density", "max_density"))
    return None if of_its_own else float(cell.settings.objective.budget)


def judge(
    cell: Cell, overrides: tuple[str, ...], outcome: Outcome, fidelity: str, costs: StepCosts | None = None
) -> Trial:
    """The trial of an outcome: value and feasibility, or why it has none. It gets its number when it is recorded.

    costs  predicts the seconds of a step, where the objective reads them
    """
    contexts = len({answer.example_id for answer in outcome.answers})
    common: dict[str, Any] = {
        "fidelity": fidelity, "overrides": overrides, "seconds": outcome.seconds, "contexts": contexts
    }  # fmt: skip
    if outcome.state != "complete":
        return Trial(**common, state=outcome.state, reason=outcome.reason, details=outcome.details)
    try:
        measures = outcome.measures()
        if costs is not None:
            measures |= _seconds(costs, outcome, measures)
        measures = completed(cell.settings.objective, measures)
        value = value_of(cell.settings.objective, measures)
    except RunError as error:
        details = traceback.format_exc() if error.__cause__ else ""
        return Trial(**common, state="failed", reason=str(error), details=details)
    excess = excess_of(cell, measures)
    feasible = all(number <= 0 for number in excess.values())
    found: dict[str, Any] = {"feasible": feasible, "value": value, "measures": measures, "excess": excess}
    return Trial(**common, **found, state="complete", spent=spent(cell.settings.objective, measures))


def _seconds(costs: StepCosts, outcome: Outcome, measures: Mapping[str, float]) -> dict[str, float]:
    """Of the mean step of a stack over its requests, and of dense attention in its place."""
    assert outcome.geometry is not None
    length = fmean(answer.n_context for answer in outcome.answers)
    shares = {name: measures[name] for name in ("density", "kv_density")}
    sparse = costs.seconds(outcome.attention.stack, outcome.geometry, length, **shares)
    dense = costs.seconds(None, outcome.geometry, length, density=1.0, kv_density=1.0)
    return {SECONDS: sparse, DENSE_SECONDS: dense}


def excess_of(cell: Cell, measures: Mapping[str, float]) -> dict[str, float]:
    """What the measures exceed the cell's targets by; feasible: none above 0.

    The builder `dense` is the yardstick: targets do not bind it.
    """
    if cell.choices.builder == "dense":
        return {}
    return excess_over(cell.settings.objective, measures)
