"""What a step will take, from what it reads: a linear model with coefficients that are not negative, fitted to steps.

    seconds = rest + keys * K + units * U + head_keys * K * density * heads + kv_keys * K * kv_density * KV heads
              + index_bytes * K * aux_bits / 8 * KV heads

K keys, of which U units are scored: keys, or pages. One model for the steps of one builder, which share their methods,
on one model of language and one machine. Fitted to relative differences, so that short steps count as long ones do.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import numpy as np
from scipy.optimize import nnls

from sahub.attention.call import Geometry
from sahub.attention.stack import Stack

FEATURES = ("rest", "keys", "units", "head_keys", "kv_keys", "index_bytes")


@dataclass(frozen=True, kw_only=True)
class Step:
    """A step of a stack over `length` keys: its features, as FEATURES names them, and what it took (None: unknown)."""

    length: float
    features: tuple[float, ...]
    seconds: float | None = None


@dataclass(frozen=True, kw_only=True)
class CostModel:
    """coefficients: seconds for each of the features; error: the median at lengths not seen."""

    coefficients: tuple[float, ...]
    error: float | None

    @property
    def named(self) -> dict[str, float]:
        """Seconds for each of the features."""
        return dict(zip(FEATURES, self.coefficients, strict=True))

    @property
    def about(self) -> str:
        """How far it can be trusted."""
        return "error unknown" if self.error is None else f"median error {100 * self.error:.1f} % at lengths not seen"

    def seconds(self, step: Step) -> float:
        """What a step will take."""
        return float(np.dot(self.coefficients, step.features))


@dataclass(frozen=True, kw_only=True)
class StepCosts:
    """Models of the steps of a builder's stacks, and of dense attention beside them, on one machine."""

    sparse: CostModel
    dense: CostModel
    machine: Mapping[str, Any]

    def document(self) -> dict[str, Any]:
        """What the summary of a run says of them."""
        models = {
            name: {"error": one.error, **one.named} for name, one in (("sparse", self.sparse), ("dense", self.dense))
        }
        return {**models, "machine": self.machine}

    def seconds(
        self, stack: Stack | None, geometry: Geometry, length: float, *, density: float, kv_density: float
    ) -> float:
        """What a step will take of a stack that keeps these shares of so many keys; None: of dense attention."""
        step = step_of(stack, geometry, length, density=density, kv_density=kv_density)
        return (self.dense if stack is None else self.sparse).seconds(step)


def step_of(
    stack: Stack | None,
    geometry: Geometry,
    length: float,
    *,
    density: float,
    kv_density: float,
    seconds: float | None = None,
) -> Step:
    """The step of a stack (None: dense attention) that keeps these shares of so many keys."""
    pages = [int(getattr(stage, "page_size", 1)) for stage in stack.stages] if stack else [1]
    aux_bits = stack.aux_bits(geometry, round(length)) if stack else 0.0
    index_bytes = length * aux_bits / 8 * geometry.num_kv_heads
    features = (
        1.0,
        length,
        length / max(pages),
        length * density * geometry.num_heads,
        length * kv_density * geometry.num_kv_heads,
        index_bytes,
    )
    return Step(length=length, features=features, seconds=seconds)


def fitted(steps: Sequence[Step]) -> CostModel:
    """The model of steps that were measured, and its median error: None for fewer than three lengths."""
    errors = errors_of(steps)
    return CostModel(coefficients=_coefficients(steps), error=median(errors) if errors else None)


def errors_of(steps: Sequence[Step]) -> list[float]:
    """Relative errors of steps of a length that the fit has not seen, each length left out in turn.

    None for fewer than three lengths: one alone says nothing of another.
    """
    lengths, found = sorted({step.length for step in steps}), []
    for length in lengths if len(lengths) > 2 else ():
        rest = CostModel(coefficients=_coefficients([step for step in steps if step.length != length]), error=None)
        found += [_off(rest, step) for step in steps if step.length == length]
    return found


def _off(model: CostModel, step: Step) -> float:
    assert step.seconds is not None
    return abs(model.seconds(step) / step.seconds - 1.0)


def _coefficients(steps: Sequence[Step]) -> tuple[float, ...]:
    rows = np.array([step.features for step in steps], dtype=float)
    seconds = np.array([step.seconds for step in steps], dtype=float)
    scale = rows.max(axis=0)
    scale[scale == 0] = 1.0
    found, _ = nnls(rows / scale / seconds[:, None], np.ones(len(steps)))
    return tuple(float(one) for one in found / scale)
