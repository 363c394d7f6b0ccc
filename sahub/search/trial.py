"""What a search tries: points as stacks, judged once they ran, each ending in a state."""

import math
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sahub.attention import per_layer
from sahub.attention.call import Geometry
from sahub.attention.stack import Stack
from sahub.builders.build import build_stack
from sahub.builders.space import Space, extremes, overrides_of, space_of
from sahub.compute.devices import check_gpus
from sahub.config.cell import Cell
from sahub.config.settings import Search as SearchSettings
from sahub.config.settings import Validate as ValidateSettings
from sahub.engine.evaluate import Plan
from sahub.engine.model import geometry, read_config
from sahub.engine.outcome import Outcome
from sahub.engine.session import Attention
from sahub.engine.weights import spec_of
from sahub.errors import ConfigError, Infeasible, RunError
from sahub.scores import check_metric
from sahub.search.objective import completed, excess_over, function_of, minimised, value_of
from sahub.stats.intervals import Tau
from sahub.trackers import trackers

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
        seed=settings.search.seed,
    )


def space_of_cell(cell: Cell) -> Space:
    """The cell's free fields: pinned ones are not, unless `search.pin` is false."""
    return space_of(cell.builder, cell.is_pinned if cell.settings.search.pin else lambda leaf: False)


def plan_of(cell: Cell, limits: Limits, *, generate: bool) -> Plan:
    """What is measured of the cell's answers, within the limits of its search or of its validation."""
    task = spec_of(cell)
    return Plan(
        task=task.name,
        metric=task.metric,
        generate=generate,
        max_new_tokens=limits.max_new_tokens,
        timeout_s=limits.timeout_s,
    )


def budget_of(cell: Cell, stages: Mapping[str, Any]) -> float | None:
    """What `of_budget` sizes are shares of: the objective's budget, None where a stage has a density of its own."""
    has_density = any((fields or {}).get("density") is not None for fields in stages.values())
    return None if has_density else float(cell.settings.objective.budget)


def check_cell(cell: Cell) -> None:
    """What can be known of a cell before a model is loaded. Raises ConfigError, with the address of what is wrong.

    Every value that a free field may take is tried, the others at their defaults: a range that no stage takes is an
    error, not a search of rejected points.
    """
    trackers.check(cell)
    settings = cell.settings
    try:
        check_metric(spec_of(cell).name, settings.task.metric)
    except ConfigError as error:
        raise ConfigError(f"task.{error}" if str(error).startswith("metric=") else str(error)) from None
    check_objective(cell)
    check_gpus(settings.compute)
    space = space_of_cell(cell)
    check_model(cell, attention_of(cell, overrides_of(space.default)).stack)
    limits_of(cell)
    own_limit(cell)
    for leaf, free in space.free.items():
        for value in extremes(free):
            try:
                attention_of(cell, overrides_of(space.reaching(leaf, value)))
            except ConfigError as error:
                raise ConfigError(f"builder.search.{leaf} allows {value}: {error}") from None


def check_model(cell: Cell, stack: Stack | None) -> None:
    """Raise ConfigError for stages that the cell's model cannot have: of it, only the configuration is read."""
    if stack is not None and per_layer.read_geometry(stack.stages):
        model = cell.settings.model
        config = read_config(model.path, model.revision, model.trust_remote_code)
        stack.check(geometry(config.get_text_config()))


def check_objective(cell: Cell) -> None:
    """Raise ConfigError for an objective that reads what is not measured, or whose function cannot be imported."""
    objective = cell.settings.objective
    reads_error = minimised(objective) in {"attention_error", "attention_mse", "combined_score"}
    if reads_error and cell.settings.protocol.measure_error == "off":
        raise ConfigError(f"protocol.measure_error=off: objective.measure={objective.measure} needs it (all, or N)")
    if objective.function:
        function_of("objective.function", objective.function.get("_target_"), cell.config_dir)


def limits_of(cell: Cell) -> dict[str, float]:
    """The upper bounds of index bits by their address: the builder's own, and the objective's target.

    A target does not bind the yardstick `dense`. Raises ConfigError for an unknown quantity or a bound that is no
    number.
    """
    limits: dict[str, Any] = dict(cell.builder.get("limits") or {})
    limits.pop("check", None)
    for name, bound in limits.items():
        if name != "aux_bits":
            raise ConfigError(f"builder.limits.{name}: unknown; limits: aux_bits, check")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound < 0:
            raise ConfigError(f"builder.limits.{name}={bound}: must be at least 0 (bits per key and KV head)")
    found = {f"builder.limits.{name}": bound for name, bound in limits.items()}
    target = cell.settings.objective.aux_bits
    return found if target is None or cell.choices.builder == "dense" else {**found, "objective.aux_bits": target}


def own_limit(cell: Cell) -> Callable[[Stack, Geometry, int], None]:
    """What raises Infeasible where the builder's own `limits.check` refuses a stack over so many keys.

    Its function is called with stack, geometry and number of keys, and what else stands beside `_target_`; a text it
    gives, or False, refuses. Raises ConfigError where it cannot be imported.
    """
    given = (cell.builder.get("limits") or {}).get("check")
    if given is None:
        return lambda stack, geometry, num_keys: None
    if not isinstance(given, Mapping):
        raise ConfigError(f"builder.limits.check={given}: must be a mapping with _target_, the name of a function")
    target = given.get("_target_")
    function = function_of("builder.limits.check", target, cell.config_dir)
    others = {name: value for name, value in given.items() if name != "_target_"}

    def check(stack: Stack, geometry: Geometry, num_keys: int) -> None:
        try:
            said = function(stack, geometry, num_keys, **others)
        except Exception as error:
            raise ConfigError(f"builder.limits.check={target}: {type(error).__name__}: {error}") from error
        if said is False or isinstance(said, str):
            raise Infeasible(f"builder.limits.check={target}: {said or 'refused'}", 1.0)

    return check


def check_limits(stack: Stack, limits: Mapping[str, float], geometry: Geometry, num_keys: int) -> None:
    """Raise Infeasible for a stack above an upper bound, the tightest; ConfigError for one that the model cannot have.

    An Infeasible says how far above the bound it is: `excess`, a share of the bound.
    """
    stack.check(geometry)
    needed = stack.aux_bits(geometry, num_keys)
    for name, bound in sorted(limits.items(), key=lambda item: item[1]):
        if needed > bound + 1e-9:
            raise Infeasible(
                f"{name}={bound:g}: this point needs {needed:.4g} bits per key and KV head",
                (needed - bound) / (bound or 1),
            )


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
    excess = excess_of(cell, outcome, measures)
    feasible = all(number <= 0 for number in excess.values())
    return Trial(**common, state="complete", feasible=feasible, value=value, measures=measures, excess=excess)


def excess_of(cell: Cell, outcome: Outcome, measures: Mapping[str, float]) -> dict[str, float]:
    """What the measures exceed the cell's targets by, up to one page of the shortest context; feasible: none above 0.

    The builder `dense` is the yardstick: targets do not bind it.
    """
    if cell.choices.builder == "dense":
        return {}
    stack = outcome.attention.stack
    granule = stack.granule / outcome.num_keys if stack else 0.0
    return excess_over(cell.settings.objective, measures, granule)
