"""Seconds of a decoding step on this machine, as a search predicts them: see sahub.timing.costs."""

from sahub.measures import Measure

MEASURE = Measure(fidelity="replay")
