"""What a search minimises: one number of a trial's measures, and whether the trial meets its targets."""

import importlib
import math
import sys
from collections.abc import Callable, Mapping
from numbers import Real
from pathlib import Path
from typing import Any

from sahub.config.group_schemas import SHARES, Objective
from sahub.config.settings import Settings
from sahub.errors import ConfigError, RunError
from sahub.fidelities import dearest
from sahub.measures import MEASURES

SECONDS, DENSE_SECONDS = "step_seconds", "dense_step_seconds"
TIES = 0.01  # weight of what orders equal measures: less than a token of some answers


def minimised(objective: Objective) -> str:
    """The measure that is minimised: `function` for a person's own."""
    return "function" if objective.function else objective.measure


def needs(objective: Objective) -> str:
    """The cheapest fidelity that has all that the objective reads."""
    own = [objective.needs] if objective.function else []
    return dearest(*own, *(MEASURES[name].fidelity for name in _read(objective)))


def fidelity_of(settings: Settings) -> str:
    """What the trials of a search are measured by first: as asked for, or as the objective needs."""
    return dearest(settings.search.fidelity, needs(settings.objective))


def reads_traces(objective: Objective) -> bool:
    """Whether the objective reads what only a replay measures, at whatever fidelity."""
    return any(MEASURES[name].of_trace is not None for name in _read(objective))


def reads_errors(objective: Objective) -> bool:
    """Whether the objective may read attention errors: a person's own function is given all measures."""
    return bool(objective.function) or any(MEASURES[name].reads_error for name in _read(objective))


def reads_seconds(objective: Objective) -> bool:
    """Whether the objective reads how long a step takes, which a search has to predict."""
    return SECONDS in _read(objective)


def _read(objective: Objective) -> list[str]:
    """The measures that the objective names: minimised, and bounded."""
    minimises = [] if objective.function else [objective.measure]
    return minimises + ([objective.loss] if objective.loss else [])


def completed(objective: Objective, measures: Mapping[str, float]) -> dict[str, float]:
    """The measures and what the objective makes of them: combined_score, or the number of its function.

    Raises RunError where that cannot be: a measure that was not taken, a function that fails or gives no number.
    """
    if objective.function:
        return {**measures, "function": _called(objective, measures)}
    made = MEASURES[objective.measure].of_measures
    if made is not None:
        return {**measures, objective.measure: _made(objective, measures, made)}
    return dict(measures)


def value_of(objective: Objective, measures: Mapping[str, float]) -> float:
    """error * measure + density * d + excess * over + above_half * (d > 0.5); lower is better.

    d is the density, or with objective.budget_of=kv the kv_density; over = max(0, d - target) + max(0, loss - largest).
    Measures that count tokens are often equal: answer_kl, drawn into [0, 0.01], is added to those.
    A benchmark score, higher is better, enters as 1 - score; a function's number is the value, without weights.
    `measures` are completed. Raises RunError where the measure was not taken.
    """
    measured = _look_up(objective, measures, minimised(objective))
    if objective.function:
        return measured
    weights, density = objective.weights, spent(objective, measures)
    kind = MEASURES[objective.measure]
    error = _lower(objective.measure, measured)
    if kind.ties:
        apart = _look_up(objective, measures, kind.ties)
        error += TIES * apart / (1.0 + apart)
    excess = 0.0 if objective.density is None else max(0.0, density - objective.density)
    excess += max(0.0, _over(objective, measures))
    return (
        weights.error * error
        + weights.density * density
        + weights.excess * excess
        + weights.above_half * (density > 0.5)
    )


def _lower(name: str, measured: float) -> float:
    """A measure of which lower is better."""
    return 1.0 - measured if MEASURES[name].higher_is_better else measured


def _over(objective: Objective, measures: Mapping[str, float]) -> float:
    """How far the loss lies above the largest, 0 where none is bounded. Raises RunError where it was not taken."""
    if objective.loss is None or objective.largest_loss is None:
        return 0.0
    return _lower(objective.loss, _look_up(objective, measures, objective.loss)) - objective.largest_loss


def spent(objective: Objective, measures: Mapping[str, float]) -> float:
    """The share of the keys that the target of density bounds: what a query head attends to, or a KV head reads."""
    return measures[SHARES[objective.budget_of]]


def excess_over(objective: Objective, measures: Mapping[str, float]) -> dict[str, float]:
    """What exceeds each target: of density beyond a thousandth of it, of aux_bits as its share, of the loss.

    A trial is feasible where none is above 0.
    """
    found = {}
    if objective.density is not None:
        found["density"] = spent(objective, measures) - 1.001 * objective.density
    if objective.aux_bits is not None:
        found["aux_bits"] = (measures["aux_bits"] - objective.aux_bits - 1e-9) / max(1.0, objective.aux_bits)
    if objective.loss is not None:
        found["loss"] = _over(objective, measures) - 1e-9
    return found


def function_of(address: str, target: object, folder: str | None = None) -> Callable[..., object]:
    """The function that a `_target_` names; `address` is that of the mapping it stands in, for messages.

    It is looked for where Python looks, then in the working directory and in `folder`, that of --config-dir.
    Raises ConfigError where it cannot be imported.
    """
    module, _, name = str(target or "").rpartition(".")
    if not module:
        raise ConfigError(f"{address}._target_={target}: must be the name of a function, my_module.my_function")
    places = [str(Path.cwd()), *([str(Path(folder).absolute())] if folder else [])]
    sys.path += [place for place in places if place not in sys.path]
    try:
        found = getattr(importlib.import_module(module), name)
    except Exception as error:
        raise ConfigError(
            f"{address}._target_={target}: cannot be imported ({type(error).__name__}: {error}); looked in "
            f"installed packages, {', '.join(places)}"
        ) from error
    if not callable(found):
        raise ConfigError(f"{address}._target_={target}: must be a function, not a {type(found).__name__}")
    function: Callable[..., object] = found
    return function


def _called(objective: Objective, measures: Mapping[str, float]) -> float:
    """The number that the function gives for the measures."""
    function = function_of("objective.function", objective.function.get("_target_"))
    others = {name: given for name, given in objective.function.items() if name != "_target_"}
    address = f"objective.function={objective.function['_target_']}"
    try:
        found = function(dict(measures), **others)
    except Exception as error:
        known = f" (measures: {', '.join(measures)})" if isinstance(error, KeyError) else ""
        raise RunError(f"{address}: {type(error).__name__}: {error}{known}") from error
    if isinstance(found, bool) or not isinstance(found, Real) or not math.isfinite(found):
        raise RunError(f"{address}: gave {found!r}; must be a finite number")
    return float(found)


def _made(
    objective: Objective, measures: Mapping[str, float], made: Callable[[Any, Mapping[str, float]], float]
) -> float:
    """A measure that is made of others."""
    try:
        return made(objective, measures)
    except KeyError as error:
        return _look_up(objective, measures, error.args[0])


def _look_up(objective: Objective, measures: Mapping[str, float], name: str) -> float:
    if name not in measures:
        key = "loss" if name == objective.loss else "measure"
        raise RunError(
            f"objective.{key}={getattr(objective, key)}: this trial has no {name}, only {', '.join(measures)}"
        )
    return measures[name]
