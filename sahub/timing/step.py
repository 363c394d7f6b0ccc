"""One decoding step, timed part by part: append, select, attend; and the ways to attend to everything."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from operator import add
from typing import Self

import torch
from torch import Tensor

from sahub.attention.selection import Selection
from sahub.attention.stack import StackState
from sahub.engine.call_stats import Inputs
from sahub.timing.clock import Clock

Way = Callable[[Inputs], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parts:
    """Seconds of a step; `rest` is what is not attention."""

    append: float = 0.0
    select: float = 0.0
    attend: float = 0.0
    rest: float = 0.0

    @property
    def values(self) -> tuple[float, ...]:
        """In the order of NAMES."""
        return tuple(getattr(self, name) for name in NAMES)

    @property
    def total(self) -> float:
        """Of all of it."""
        return sum(self.values)

    def plus(self, other: Self) -> Self:
        """Both together."""
        return type(self)(**dict(zip(NAMES, map(add, self.values, other.values), strict=True)))


NAMES = tuple(one.name for one in fields(Parts))


def sparse_step(state: StackState, call: Inputs, clock: Clock) -> tuple[Tensor, Selection, Parts]:
    """Attention output [b, q, h, dv] of the rows that are new to the state, their selection, and what it took."""
    new = slice(state.length, call.key.shape[2])
    marks = [clock()]
    state.append(call.key[:, :, new], call.value[:, :, new])
    marks.append(clock())
    selection = state.select(call.query, call.key, call.value, **call.formula)
    marks.append(clock())
    output = call.sparse(selection)
    marks.append(clock())
    parts = Parts(append=marks[1] - marks[0], select=marks[2] - marks[1], attend=marks[3] - marks[2])
    return output, selection, parts


def dense_step(way: Way, call: Inputs, clock: Clock) -> tuple[Tensor, Parts]:
    """The same of attention to everything."""
    begin = clock()
    output = way(call)
    return output, Parts(attend=clock() - begin)


def grouped_matmul(call: Inputs) -> Tensor:
    """Two products for each KV head, [b, 1, h, dv]; of one row that sees all keys, without softcap and sinks."""
    grouped = call.query.unflatten(1, (call.key.shape[1], -1))[:, :, :, 0]
    logits = grouped @ call.key.transpose(-1, -2) * call.scale
    output: Tensor = (logits.softmax(-1) @ call.value).flatten(1, 2)
    return output[:, None]


def heads_as_rows(call: Inputs) -> Tensor:
    """The same by torch's fused attention, the heads of a group as its rows.

    With `enable_gqa` it takes several times as long.
    """
    grouped = call.query.unflatten(1, (call.key.shape[1], -1))[:, :, :, 0]
    fused = torch.nn.functional.scaled_dot_product_attention(grouped, call.key, call.value, scale=call.scale)
    return fused.flatten(1, 2)[:, None]


PLAIN: Mapping[str, Way] = {"grouped_matmul": grouped_matmul, "heads_as_rows": heads_as_rows}


def plainly(way: Way) -> Way:
    """`way` where a layer's softmax has nothing of its own, else what computes that."""

    def attend(call: Inputs) -> Tensor:
        return way(call) if call.softcap is None and call.sinks is None and call.mask is None else call.dense()

    return attend


@dataclass(kw_only=True)
class Timed:
    """What the layers of a model are routed to for one step.

    way      how layers without a state attend, to everything
    looks    whether to look at what is chosen, which takes time
    density  of each sparse layer, where it was looked at; kv_density too
    """

    way: Way
    clock: Clock
    states: Mapping[int, StackState] = field(default_factory=dict)
    looks: bool = False
    parts: Parts = field(default_factory=Parts)
    calls: int = 0
    density: list[float] = field(default_factory=list)
    kv_density: list[float] = field(default_factory=list)

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Attention of one call of one layer: [B, Q, Hq, Dv]."""
        self.calls += 1
        if layer not in self.states:
            output, parts = dense_step(self.way, call, self.clock)
        else:
            output, selection, parts = sparse_step(self.states[layer], call, self.clock)
            if self.looks:
                self.density.append(float(selection.density()))
                self.kv_density.append(float(selection.kv_density()))
        self.parts = self.parts.plus(parts)
        return output
