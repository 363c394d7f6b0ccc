"""What a search tries: points as stacks, judged once they ran, each ending in a state."""

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
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
from sahub.search.objective import completed, excess_over, reads_traces, value_of
from sahub.stats.intervals import Tau

STATES = ("complete", "pruned", "rejected", "failed")
Limits = SearchSettings | ValidateSettings


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point at one fidelity. Only `complete` has measures and a value; `rejected` never ran.

    rungs   contexts seen -> value, at each decision of a scheduler; what a `pruned` trial has
    excess  target -> what the measures exceed it by, 0 and less where it is met
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
    excess: Mapping[str, float] = field(default_factory=dict)
    tasks: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @property
    def rank(self) -> tuple[float, float, float, tuple[str, ...]]:
        """Order of complete trials: value, then density, index bits and the text of the overrides."""
        value = math.inf if self.value is None else self.value
        return value, self.measures.get("density", 1.0), self.measures.get("aux_bits", 0.0), self.overrides


@dataclass(frozen=True, kw_only=True)
class Study:
    """All trials of a cell, the winner, and how well the cheap fidelity predicted the dear one."""

    trials: tuple[Trial, ...]
    best: Trial | None
    default: Trial
    seconds: float
    generated: Trial | None = None  # the winner's, where it was promoted
    tau: Tau | None = None
    regret: float | None = None

    def counts(self) -> dict[str, int]:
        """Number of points in each state, at the fidelity of the search: promoted ones are not counted twice."""
        points = [trial for trial in self.trials if trial.fidelity == self.trials[0].fidelity]
        return {state: sum(trial.state == state for trial in points) for state in STATES}


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


def judge(cell: Cell, overrides: tuple[str, ...], outcome: Outcome, fidelity: str) -> Trial:
    """The trial of an outcome: value and feasibility, or why it has none. It gets its number when it is recorded."""
    contexts = len({answer.example_id for answer in outcome.answers})
    common: dict[str, Any] = {
        "fidelity": fidelity, "overrides": overrides, "seconds": outcome.seconds, "contexts": contexts
    }  # fmt: skip
    if outcome.state != "complete":
        return Trial(**common, state=outcome.state, reason=outcome.reason, details=outcome.details)
    try:
        measures = completed(cell.settings.objective, outcome.measures())
        value = value_of(cell.settings.objective, measures)
    except RunError as error:
        details = traceback.format_exc() if error.__cause__ else ""
        return Trial(**common, state="failed", reason=str(error), details=details)
    excess = excess_of(cell, measures)
    feasible = all(number <= 0 for number in excess.values())
    return Trial(**common, state="complete", feasible=feasible, value=value, measures=measures, excess=excess)


def excess_of(cell: Cell, measures: Mapping[str, float]) -> dict[str, float]:
    """What the measures exceed the cell's targets by; feasible: none above 0.

    The builder `dense` is the yardstick: targets do not bind it.
    """
    if cell.choices.builder == "dense":
        return {}
    return excess_over(cell.settings.objective, measures)
