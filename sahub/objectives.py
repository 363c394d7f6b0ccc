"""What a search minimises: one number of a trial's measures, and whether the trial meets its targets."""

from collections.abc import Mapping
from typing import Protocol

from sahub.errors import RunError

# Replay has none of these; teacher-forced answers give the first three, generated answers all.
FIDELITY_OF = {
    "answer_kl": "teacher",
    "answer_nll": "teacher",
    "attention_error": "teacher",
    "benchmark_score": "generate",
}


class Weights(Protocol):
    """Weights of the terms of an objective."""

    @property
    def error(self) -> float: ...
    @property
    def density(self) -> float: ...
    @property
    def excess(self) -> float: ...
    @property
    def above_half(self) -> float: ...


class Objective(Protocol):
    """Targets and formula of an objective."""

    @property
    def density(self) -> float | None: ...
    @property
    def aux_bits(self) -> float | None: ...
    @property
    def measure(self) -> str: ...
    @property
    def weights(self) -> Weights: ...


def value(objective: Objective, measures: Mapping[str, float]) -> float:
    """error * measure + density * d + excess * max(0, d - target) + above_half * (d > 0.5); lower is better.

    A benchmark score, higher is better, enters as 1 - score. Raises RunError where the measure was not taken.
    """
    if objective.measure not in measures:
        raise RunError(
            f"objective.measure={objective.measure}: this trial has no such measure, only {', '.join(measures)}"
        )
    weights, density = objective.weights, measures["density"]
    measured = measures[objective.measure]
    error = 1.0 - measured if objective.measure == "benchmark_score" else measured
    excess = 0.0 if objective.density is None else max(0.0, density - objective.density)
    return (
        weights.error * error
        + weights.density * density
        + weights.excess * excess
        + weights.above_half * (density > 0.5)
    )


def feasible(objective: Objective, measures: Mapping[str, float], granule: float) -> bool:
    """density <= target + granule (one page as a share of the keys) and aux_bits <= target."""
    within = objective.density is None or measures["density"] <= objective.density + granule + 1e-9
    return within and (objective.aux_bits is None or measures["aux_bits"] <= objective.aux_bits + 1e-9)
