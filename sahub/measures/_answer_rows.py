"""What the rows that give an answer's tokens miss, from the sums of a replay."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sahub.measures import Tallies


def by_layer(tallies: Tallies) -> list[Sequence[Any]]:
    """The tallies of each layer's answer rows."""
    layers = sorted({layer for layer, _ in tallies})
    return [[one for (of, phase), one in tallies.items() if of == layer and phase != "question"] for layer in layers]


def mean_over_layers(tallies: Tallies, name: str) -> float:
    """Mean over layers of the mean over rows of a sum."""
    return fmean(sum(float(getattr(one, name)) for one in of) / sum(one.rows for one in of) for of in by_layer(tallies))
