"""What a search tries: points as stacks, judged once they ran, each ending in a state."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sahub import objectives
from sahub.builder import build_stack
from sahub.config import Cell
from sahub.errors import ConfigError, Infeasible, RunError
from sahub.evaluate import Outcome
from sahub.intervals import Tau
from sahub.protocols import Geometry
from sahub.session import Attention
from sahub.stack import Stack


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One point at one fidelity. Only `complete` has measures and a value; `rejected` never ran."""

    number: int
    state: str  # complete, rejected, failed
    fidelity: str
    overrides: tuple[str, ...]
    reason: str = ""
    details: str = ""
    feasible: bool | None = None
    value: float | None = None
    measures: Mapping[str, float] = field(default_factory=dict)
    seconds: float = 0.0

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
        """Number of trials in each state."""
        states = ("complete", "rejected", "failed")
        return {state: sum(trial.state == state for trial in self.trials) for state in states}


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
        seed=settings.search.seed,
    )


def budget_of(cell: Cell, stages: Mapping[str, Any]) -> float | None:
    """What `of_budget` sizes are shares of: the objective's budget, None where a stage has a density of its own."""
    has_density = any("density" in (fields or {}) for fields in stages.values())
    return None if has_density else float(cell.settings.objective.budget)


def check_limits(stack: Stack, limits: Mapping[str, Any], geometry: Geometry, num_keys: int) -> None:
    """Raise Infeasible for a stack above a declared upper bound, ConfigError for a bound on an unknown quantity."""
    for name, bound in limits.items():
        if name != "aux_bits":
            raise ConfigError(f"builder.limits.{name}: unknown; limits: aux_bits")
        needed = stack.aux_bits(geometry, num_keys)
        if needed > bound + 1e-9:
            raise Infeasible(f"builder.limits.aux_bits={bound}: this point needs {needed:g} bits per key and KV head")


def judge(cell: Cell, overrides: tuple[str, ...], outcome: Outcome, fidelity: str) -> Trial:
    """The trial of an outcome: value and feasibility, or why it has none. It gets its number when it is recorded."""
    common: dict[str, Any] = {"number": 0, "fidelity": fidelity, "overrides": overrides, "seconds": outcome.seconds}
    if outcome.state != "complete":
        return Trial(**common, state="failed", reason=outcome.reason, details=outcome.details)
    try:
        measures = outcome.measures()
        value = objectives.value(cell.settings.objective, measures)
    except RunError as error:
        return Trial(**common, state="failed", reason=str(error))
    return Trial(
        **common,
        state="complete",
        feasible=is_feasible(cell, outcome, measures),
        value=value,
        measures=measures,
    )


def is_feasible(cell: Cell, outcome: Outcome, measures: Mapping[str, float]) -> bool:
    """Whether the measures meet the cell's targets, up to one page of the shortest context."""
    stack = outcome.attention.stack
    granule = stack.granule / outcome.num_keys if stack else 0.0
    return objectives.feasible(cell.settings.objective, measures, granule)
