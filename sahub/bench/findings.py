"""What was measured of one model: steps of its builders over lengths, and from where each is faster than dense."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from sahub.timing.measure import Measured
from sahub.timing.step import NAMES

MB = 1e6


@dataclass(frozen=True, kw_only=True)
class Findings:
    """The measurements of one model, dense first at each length.

    layers  that are sparse
    stages  name of a row -> its builder's stages
    """

    model: str
    dtype: str
    layers: int
    machine: Mapping[str, Any]
    measured: Sequence[Measured]
    stages: Mapping[str, Any]
    overrides: Sequence[str]

    @property
    def names(self) -> list[str]:
        """Of the rows, each once."""
        return list(dict.fromkeys(one.name for one in self.measured))

    @property
    def crossovers(self) -> dict[str, "Crossover"]:
        """Of every builder but dense."""
        return {name: crossover([one for one in self.measured if one.name == name]) for name in self.names[1:]}

    def document(self) -> dict[str, Any]:
        """What `bench.json` holds of them."""
        return {
            "model": self.model,
            "dtype": self.dtype,
            "sparse_layers": self.layers,
            "machine": self.machine,
            "overrides": self.overrides,
            "builders": self.stages,
            "steps": [row_of(self.model, one) for one in self.measured],
            "crossovers": {name: {"keys": one.keys, "text": one.text} for name, one in self.crossovers.items()},
        }


@dataclass(frozen=True, kw_only=True)
class Crossover:
    """The number of keys from which a builder is faster than dense; None where it is not, up to the longest."""

    keys: float | None
    text: str


def crossover(measured: Sequence[Measured]) -> Crossover:
    """Of one builder: behind the last length at which it is slower, interpolated on logarithmic scales."""
    steps = sorted(measured, key=lambda one: one.length)
    first, last = steps[0], steps[-1]
    if last.against_dense < 1:
        return Crossover(keys=None, text=f"not faster than dense up to {last.length:,} keys")
    slower = [pair for pair in pairwise(steps) if pair[0].against_dense < 1]
    if not slower:
        return Crossover(keys=first.length, text=f"faster than dense from {first.length:,} keys or fewer")
    below, above = slower[-1]
    share = -math.log(below.against_dense) / math.log(above.against_dense / below.against_dense)
    keys = below.length * (above.length / below.length) ** share
    return Crossover(keys=keys, text=f"faster than dense from about {keys:,.0f} keys")


def row_of(model: str, one: Measured) -> dict[str, Any]:
    """A line of `bench.csv`."""
    return {
        "model": model,
        "builder": one.name,
        "keys": one.length,
        **{f"{name}_ms": 1e3 * seconds for name, seconds in zip(NAMES, one.parts.values, strict=True)},
        "step_ms": 1e3 * one.step,
        "against_dense": one.against_dense,
        "tokens_per_second": 1 / one.step,
        "bytes_per_step": one.bytes_read,
        "density": one.density,
        "kv_density": one.kv_density,
        "aux_bits": one.aux_bits,
        "build_seconds": one.build_seconds,
        "peak_bytes": one.peak_bytes,
        "keys_of_text": one.text_tokens,
    }
