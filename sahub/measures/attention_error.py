"""The relative error of the attention output, e."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from sahub.measures import Measure, Measured
from sahub.measures._attention_errors import by_layer


def error_by_example(micro: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """Attention error of each example: mean over layers of sqrt(sum |sparse - dense|^2 / sum |dense|^2) of its rows.

    Layers and rows where the dense output was not computed are left out.
    """
    return {
        example: fmean(math.sqrt(error / norm) for error, norm in layers)
        for example, layers in by_layer(micro, "norm").items()
    }


def _of_run(run: Measured) -> float | None:
    errors = error_by_example(run.micro)
    return fmean(errors.values()) if errors else None


MEASURE = Measure(fidelity="replay", column="e", of_run=_of_run, reads_error=True)
