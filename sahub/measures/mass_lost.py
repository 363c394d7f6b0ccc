"""The softmax mass of the keys that were not kept, mean over the rows of the answer, heads and layers."""

from sahub.measures import Measure, Tallies
from sahub.measures._answer_rows import mean_over_layers


def _of_trace(tallies: Tallies) -> float:
    return mean_over_layers(tallies, "mass_lost")


MEASURE = Measure(fidelity="replay", of_trace=_of_trace)
