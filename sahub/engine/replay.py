"""Replay: a stack on what one dense run saw, layer by layer, without the model.

A trace holds the queries and dense outputs of some rows of question and answer; keys and values are the prefix's own
and a tail. Selecting sees what it would see inside the model if only that layer were sparse.
"""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import Any, Self

import torch
from torch import Tensor

from sahub.attention.selection import Selection
from sahub.attention.stack import Stack
from sahub.engine.call_stats import Inputs, Tally
from sahub.engine.prefix import Prefix
from sahub.engine.routing import attached

FIRST, LAST = 64, 64  # rows of a question that are replayed: its beginning, and its end
LOGIT_BYTES = 4 << 20  # of dense logits that a block keeps for the next stack
_OUT = float("-inf")


@dataclass
class Block:
    """Consecutive rows of a layer: queries [1, h, n, d], dense outputs fp32 [1, n, h, dv]; the last sees `end` keys."""

    scale: float
    phase: str  # question; first_token: its last row, which gives that; decode: those of the answer
    end: int
    queries: Tensor
    outputs: Tensor
    softcap: float | None  # of the logits, and learned sinks [h], where the layer has them
    sinks: Tensor | None
    _dense: Tensor | None = field(default=None, repr=False)

    def logits(self, keys: Tensor) -> Tensor:
        """Logits fp32 [1, h, n, end] over keys [1, g, end, d], -inf where a row sees none; small ones are kept."""
        if self._dense is not None:
            return self._dense
        rows, group = self.queries.shape[2], self.queries.shape[1] // keys.shape[1]
        grouped = self.queries.float().unflatten(1, (keys.shape[1], group)).flatten(2, 3)
        logits: Tensor = (grouped @ keys.float().transpose(-1, -2) * self.scale).unflatten(2, (group, rows))
        if self.softcap is not None:
            logits = (logits / self.softcap).tanh() * self.softcap
        hidden = torch.ones(rows, self.end, dtype=torch.bool, device=keys.device).triu(self.end - rows + 1)
        logits = logits.flatten(1, 2).masked_fill_(hidden, _OUT)
        if logits.nbytes <= LOGIT_BYTES:
            self._dense = logits
        return logits

    def softmax(self, logits: Tensor) -> Tensor:
        """Of logits [1, h, n, end], with the layer's sinks in the sum."""
        if self.sinks is None:
            return logits.softmax(-1)
        sinks = self.sinks.float()[None, :, None, None].expand(1, -1, logits.shape[2], 1)
        return torch.cat([logits, sinks], dim=-1).softmax(-1)[..., :-1]


@dataclass
class LayerTrace:
    """One layer's tail of keys [1, g, n, d] and values, and its blocks in order."""

    keys: Tensor
    values: Tensor
    blocks: list[Block]


@dataclass
class Trace:
    """What a dense run of one question left, beside the prefix it stands on."""

    prefix: Prefix
    layers: dict[int, LayerTrace]


@dataclass(frozen=True, kw_only=True)
class Replayed:
    """What a replay found, in the place of a run: there are no logits, since no model ran."""

    ids: list[int]
    tallies: dict[tuple[int, str], Tally]
    seconds: float
    logits: None = None

    @property
    def hook(self) -> Self:
        """What holds the tallies."""
        return self


class _Recorder:
    """Dense attention that keeps what replay needs."""

    def __init__(self, prefix: int, question: int) -> None:
        self.prefix, self.question = prefix, question
        self.layers: dict[int, LayerTrace] = {}

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """See sahub.engine.routing.Attends."""
        output = call.dense()
        blocks = [
            Block(
                scale=call.scale,
                phase=phase,
                end=self.prefix + part.stop,
                queries=call.query[:, :, part].clone(),
                outputs=output[:, part].float(),
                softcap=call.softcap,
                sinks=call.sinks,
            )
            for phase, part in _parts(self.question, call.query.shape[2])
        ]
        tail = slice(self.prefix, None)
        self.layers[layer] = LayerTrace(call.key[:, :, tail].clone(), call.value[:, :, tail].clone(), blocks)
        return output


def _parts(question: int, rows: int) -> Iterator[tuple[str, slice]]:
    """The rows that are replayed: of a question the first and the last, and all of the answer."""
    last = question - 1
    if last > FIRST + LAST:
        yield "question", slice(0, FIRST)
        yield "question", slice(last - LAST, last)
    elif last:
        yield "question", slice(0, last)
    yield "first_token", slice(last, question)
    if rows > question:
        yield "decode", slice(question, rows)


@torch.inference_mode()
def record(model: Any, prefix: Prefix, question: list[int], answer: list[int]) -> Trace:
    """One dense run of question and answer after a prefix, through our own attention; `model` as the engine has it."""
    prefix.rewind()
    recorder = _Recorder(prefix.length, len(question))
    ids = torch.tensor([question + answer[:-1]], device=model.device)
    with attached(model.hf, recorder):
        model.hf(input_ids=ids, past_key_values=prefix.cache, use_cache=True, logits_to_keep=1)
    prefix.rewind()
    return Trace(prefix, recorder.layers)


@torch.inference_mode()
def replay(
    trace: Trace,
    stack: Stack,
    *,
    seed: int = 0,
    dense_layers: Collection[int] = (),
    dense_question: bool = False,
) -> dict[tuple[int, str], Tally]:
    """What the stack would have kept and missed at every traced row: a tally per layer and phase.

    `dense_question`: only the rows of the answer are sparse, as in setup A.
    """
    tallies: dict[tuple[int, str], Tally] = {}
    for number, layer in trace.layers.items():
        if number in dense_layers:
            continue
        keys, values = trace.prefix.with_tail(number, layer.keys, layer.values)
        state, begin = trace.prefix.state(stack, number, seed), trace.prefix.length
        for block in layer.blocks:
            state.append(keys[:, :, begin : block.end], values[:, :, begin : block.end])
            begin = block.end
            seen = keys[:, :, : block.end], values[:, :, : block.end]
            if dense_question and block.phase != "decode":
                state.observe(block.queries, *seen, scale=block.scale, softcap=block.softcap)
                continue
            selection = state.select(block.queries, *seen, scale=block.scale, softcap=block.softcap)
            tally = tallies.setdefault((number, block.phase), Tally())
            _count(tally, block, selection, *seen)
    return tallies


def _count(tally: Tally, block: Block, selection: Selection, keys: Tensor, values: Tensor) -> None:
    """Add a block's sums: what is kept, the error of the output, what is missed of the softmax."""
    logits = block.logits(keys)
    weights = selection.dense_log_weight()
    grouped = block.softmax(logits + weights).unflatten(1, (values.shape[1], -1))  # [1, g, heads of a group, n, end]
    output = (grouped.flatten(2, 3) @ values.float()).unflatten(2, grouped.shape[2:4])
    tally.add_selection(selection, block.queries.shape[2])
    tally.add_error(output.flatten(1, 2).transpose(1, 2), block.outputs)
    tally.add_missed(block.softmax(logits), weights > _OUT)
