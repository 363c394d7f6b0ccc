"""Squared differences of attention outputs, gathered from micro rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any


def by_layer(micro: Sequence[Mapping[str, Any]], over: str) -> dict[str, list[tuple[float, float]]]:
    """(sum of squared differences, sum of `over`) of every layer of every example, where they were measured."""
    sums: defaultdict[str, defaultdict[int, list[float]]] = defaultdict(lambda: defaultdict(lambda: [0.0, 0.0]))
    for row in micro:
        if row["norm"]:
            pair = sums[row["example"]][row["layer"]]
            pair[0] += row["error"]
            pair[1] += row[over]
    return {example: [(error, size) for error, size in layers.values()] for example, layers in sums.items()}
