"""Traces: what a dense run of one question leaves for replay. To read one takes neither the model nor the prefix."""

from collections import OrderedDict
from collections.abc import Collection, Hashable, Iterator
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch
from torch import Tensor

from sahub.attention.stack import Stack, StackState
from sahub.engine.call_stats import Inputs
from sahub.engine.prefix import Prefix
from sahub.engine.routing import attached

FIRST, LAST = 64, 64  # rows of a question that are traced: its beginning, and its end
BATCH_ELEMENTS = 1 << 19  # logits of the layers that are replayed as one batch
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
            most = 1 if by_layer else max(1, BATCH_ELEMENTS // elements)
            start = 0
            for is_left_out, same in groupby(number in without for number in group.numbers):
                stop = start + len(list(same))
                for first in range(start, start if is_left_out else stop, most):
                    yield group, slice(first, min(first + most, stop))
                start = stop

    def state(self, stack: Stack, layers: Layers, seed: int) -> StackState:
        """The stack's state at the end of the context; indexes that a stack with the same ones built are shared."""
        known: dict[str, Any] = {"layer": layers.numbers[0], "seed": seed, "example": self.example}
        key = (layers.numbers, seed, stack.index_keys())
        if key not in self.indexes:
            built = stack.new_state(**known)
            built.append(layers.keys[:, :, : self.length], layers.values[:, :, : self.length], None)
            built.freeze()
            self.indexes[key] = built.indexes
            while len(self.indexes) > INDEX_SETS * sum(len(group.numbers) for group in self.groups):
                self.indexes.popitem(last=False)
        self.indexes.move_to_end(key)
        return stack.new_state(**known, indexes=self.indexes[key], length=self.length)

    @property
    def nbytes(self) -> int:
        """Bytes of the layers, and of what was built from them."""
        built = [index for held in self.indexes.values() for index in held]
        return sum(getattr(one, "nbytes", 0) for one in [*self.groups, *self.seen.values(), *built])


def _phase(row: int, question: int) -> str:
    """Of a row: question; first_token, its last, which gives that; decode, those of the answer."""
    if row >= question:
        return "decode"
    return "first_token" if row == question - 1 else "question"


class _Recorder:
    """Dense attention that keeps what replay needs."""

    def __init__(self, rows: list[int]) -> None:
        self._rows = torch.tensor(rows)
        self.layers: dict[int, Layers] = {}

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """See sahub.engine.routing.Attends."""
        output = call.dense()
        rows = self._rows.to(output.device)
        self.layers[layer] = Layers(
            numbers=(layer,),
            scale=call.scale,
            softcap=call.softcap,
            keys=call.key,
            values=call.value,
            queries=call.query[:, :, rows],
            outputs=output[:, rows].float(),
            sinks=None if call.sinks is None else call.sinks[None],
        )
        return output


@torch.inference_mode()
def record(model: Any, prefix: Prefix, question: list[int], answer: list[int]) -> Trace:
    """One dense run of question and answer after a prefix, through our own attention; `model` as the engine has it."""
    prefix.rewind()
    ids = question + answer[:-1]
    last = len(question) - 1
    rows = [row for row in range(len(ids)) if not FIRST <= row < last - LAST]
    recorder = _Recorder(rows)
    with attached(model.hf, recorder):
        model.hf(
            input_ids=torch.tensor([ids], device=model.device),
            past_key_values=prefix.cache,
            use_cache=True,
            logits_to_keep=1,
        )
    trace = Trace(
        length=prefix.length,
        example=prefix.example,
        question=len(question),
        rows=tuple(rows),
        groups=_grouped(recorder.layers),
    )
    prefix.rewind()
    return trace


def _grouped(layers: dict[int, Layers]) -> list[Layers]:
    """Copies of the layers of each shape as one, by number."""
    kinds: dict[Hashable, list[Layers]] = {}
    for _, one in sorted(layers.items()):
        tensors = (one.keys, one.values, one.queries, one.sinks)
        shape = tuple(None if x is None else (x.shape, x.dtype, x.device) for x in tensors)
        kinds.setdefault((one.scale, one.softcap, shape), []).append(one)
    return [_joined(alike) for alike in kinds.values()]


def _joined(alike: list[Layers]) -> Layers:
    first = alike[0]
    sinks = [one.sinks for one in alike if one.sinks is not None]
    return Layers(
        numbers=tuple(one.numbers[0] for one in alike),
        scale=first.scale,
        softcap=first.softcap,
        keys=torch.cat([one.keys for one in alike]),
        values=torch.cat([one.values for one in alike]),
        queries=torch.cat([one.queries for one in alike]),
        outputs=torch.cat([one.outputs for one in alike]),
        sinks=torch.cat(sinks) if sinks else None,
    )
