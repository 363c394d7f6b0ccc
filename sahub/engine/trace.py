"""Traces: what a dense run of one question leaves for replay. To read one takes neither the model nor the prefix."""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

from torch import Tensor

from sahub.attention.stack import Stack, StackState

BATCH_ELEMENTS = 1 << 19  # logits of the layers that are replayed as one batch
TENSORS = ("keys", "values", "queries", "outputs", "sinks")  # of Layers
INDEX_SETS = 8  # kept per trace: the stacks of one batch of trials


@dataclass(frozen=True, kw_only=True)
class Layers:
    """Layers of one shape, as one batch: context and tail, and the traced rows.

    keys, values  [l, g, n, d] and [l, g, n, dv]
    queries       [l, h, r, d];  outputs  fp32 [l, r, h, dv]: dense
    sinks         learned logits [l, h], where the layers have them
    """

    numbers: tuple[int, ...]
    scale: float
    softcap: float | None
    keys: Tensor
    values: Tensor
    queries: Tensor
    outputs: Tensor
    sinks: Tensor | None

    def fed(self, state: StackState, run: "Run") -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the run's rows, keys and values up to them; those that the state has not seen are appended."""
        keys, values = self.keys[:, :, : run.end], self.values[:, :, : run.end]
        state.append(keys[:, :, state.length :], values[:, :, state.length :])
        return self.queries[:, :, run.part], keys, values

    @property
    def nbytes(self) -> int:
        """Bytes of keys, values, queries and outputs."""
        return sum(one.nbytes for one in (self.keys, self.values, self.queries, self.outputs))

    def at(self, part: slice) -> "Layers":
        """Some of them, as views."""
        return Layers(
            numbers=self.numbers[part],
            scale=self.scale,
            softcap=self.softcap,
            keys=self.keys[part],
            values=self.values[part],
            queries=self.queries[part],
            outputs=self.outputs[part],
            sinks=None if self.sinks is None else self.sinks[part],
        )


@dataclass(frozen=True, kw_only=True)
class Run:
    """Consecutive rows that are asked together: `part` of the queries; the last of them sees `end` keys."""

    part: slice
    end: int
    phases: tuple[str, ...]  # of each row
    counted: bool


@dataclass(kw_only=True)
class Trace:
    """The layers, and which rows of question and answer were kept of them."""

    length: int  # tokens of the context
    example: int  # of the context, for random numbers
    question: int  # tokens
    rows: tuple[int, ...]  # positions after the context
    groups: list[Layers]
    is_mapped: bool = False  # from a file, whose pages all readers share
    indexes: OrderedDict[Hashable, Any] = field(default_factory=OrderedDict, repr=False)
    seen: dict[Hashable, Any] = field(default_factory=dict, repr=False)  # what replay keeps of all stacks

    def runs(self, counted: Collection[str]) -> list[Run]:
        """The rows in order, cut where positions jump, and where counting begins or ends."""
        phases = tuple(_phase(row, self.question) for row in self.rows)
        marks = [(row - at, phases[at] in counted) for at, row in enumerate(self.rows)]
        found, start = [], 0
        for (_, is_counted), same in groupby(marks):
            part = slice(start, start + len(list(same)))
            end = self.length + self.rows[part.stop - 1] + 1
            found.append(Run(part=part, end=end, phases=phases[part], counted=is_counted))
            start = part.stop
        return found

    def batches(self, stack: Stack, rows: int, without: Collection[int]) -> Iterator[tuple[Layers, slice]]:
        """The parts of each group that a stack takes as one batch, for so many rows in each layer."""
        by_layer = stack.differs_by_layer
        for group in self.groups:
            elements = rows * group.queries.shape[1] * group.keys.shape[2]
            most = 1 if by_layer else max(1, BATCH_ELEMENTS // max(1, elements))  # no rows: an answer of one token
            start = 0
            for is_left_out, same in groupby(number in without for number in group.numbers):
                stop = start + len(list(same))
                for first in range(start, start if is_left_out else stop, most):
                    yield group, slice(first, min(first + most, stop))
                start = stop

    def state(self, stack: Stack, layers: Layers, seed: int, shown: Sequence[Run]) -> StackState:
        """The state after the context and the rows that are only shown; stacks with the same indexes share them."""
        known: dict[str, Any] = {"layer": layers.numbers[0], "seed": seed, "example": self.example}
        length = shown[-1].end if shown else self.length
        key = (layers.numbers, seed, stack.index_keys(), length)
        if key not in self.indexes:
            built = stack.new_state(**known)
            built.append(layers.keys[:, :, : self.length], layers.values[:, :, : self.length], None)
            built.freeze()
            for run in shown:
                built.observe(*layers.fed(built, run), scale=layers.scale, softcap=layers.softcap)
            self.indexes[key] = built.indexes
            while len(self.indexes) > INDEX_SETS * sum(len(group.numbers) for group in self.groups):
                self.indexes.popitem(last=False)
        self.indexes.move_to_end(key)
        return stack.new_state(**known, indexes=self.indexes[key], length=length)

    @property
    def nbytes(self) -> int:
        """Bytes of memory of its own: of the layers without a file, and of what was built from them."""
        built = [index for held in self.indexes.values() for index in held]
        own = [] if self.is_mapped else self.groups
        return sum(getattr(one, "nbytes", 0) for one in [*own, *self.seen.values(), *built])


def _phase(row: int, question: int) -> str:
    """Of a row: question; first_token, its last, which gives that; decode, those of the answer."""
    if row >= question:
        return "decode"
    return "first_token" if row == question - 1 else "question"
