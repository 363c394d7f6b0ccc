"""The same as top1_missed of each layer's worst head and row of the answer, mean over layers."""

from statistics import fmean

from sahub.measures import Measure, Tallies
from sahub.measures._answer_rows import by_layer


def _of_trace(tallies: Tallies) -> float:
    return fmean(max(float(one.worst_top1_missed) for one in of) for of in by_layer(tallies))


MEASURE = Measure(fidelity="replay", of_trace=_of_trace)
