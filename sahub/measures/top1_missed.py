"""The weight of a row's strongest key where it was not kept, mean over the answer's rows, heads and layers."""

from sahub.measures import Measure, Tallies
from sahub.measures._answer_rows import mean_over_layers


def _of_trace(tallies: Tallies) -> float:
    return mean_over_layers(tallies, "top1_missed")


MEASURE = Measure(fidelity="replay", of_trace=_of_trace)
