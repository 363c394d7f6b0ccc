"""The mean squared error of the attention output."""

from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from sahub.measures import Measure, Measured
from sahub.measures._attention_errors import by_layer


def mse_by_example(micro: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Mean over layers of sum |sparse - dense|^2 / number of elements of the attention output, of each example."""
    return {
        example: fmean(error / elements for error, elements in layers)
        for example, layers in by_layer(micro, "elements").items()
    }


def _of_run(run: Measured) -> float | None:
    errors = mse_by_example(run.micro)
    return fmean(errors.values()) if errors else None


MEASURE = Measure(fidelity="replay", of_run=_of_run, reads_error=True)
