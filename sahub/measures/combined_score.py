"""The predecessor's objective: an attention error plus a penalty for the lost benchmark score."""

from collections.abc import Mapping
from typing import Any

from sahub.measures import Measure

ERRORS = {"relative_l2": "attention_error", "mse": "attention_mse"}  # objective.error -> the measure


def _of_measures(objective: Any, measures: Mapping[str, float]) -> float:
    return measures[ERRORS[objective.error]] + float(objective.penalty) * (1.0 - measures["benchmark_score"])


MEASURE = Measure(fidelity="generate", of_measures=_of_measures, reads_error=True)
