"""Replay: a stack on what one dense run saw, layer by layer, without the model.

Selecting sees what it would see inside the model if only that layer were sparse. Layers of one shape are one batch.
"""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sahub.attention.call import capped
from sahub.attention.selection import Kind, Selection
from sahub.attention.stack import Stack
from sahub.engine.call_stats import Tally
from sahub.engine.trace import Layers, Run, Trace
from sahub.errors import ConfigError, SahubError

ROWS = {"answer": ("first_token", "decode"), "all": ("question", "first_token", "decode")}
SEEN_BYTES = 64 << 20  # of the dense softmax of a trace that is kept for the next stack
_OUT = float("-inf")


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


@dataclass(frozen=True, kw_only=True)
class Seen:
    """What the dense softmax gives each row of a run: fp32 [l, h, q, end], or [l, h, q, 1].

    logs    log of each key's share, -inf where the row does not see it
    sink    log of the share of the learned sink; -inf without one
    top     the largest share of a key, and `top_at` its position
    """

    logs: Tensor
    sink: Tensor
    top: Tensor
    top_at: Tensor

    @classmethod
    def of(cls, layers: Layers, run: Run) -> "Seen":
        """By the formula of `attend`."""
        keys, queries = layers.keys[:, :, : run.end].float(), layers.queries[:, :, run.part].float()
        rows, group = queries.shape[2], queries.shape[1] // keys.shape[1]
        grouped = queries.unflatten(1, (keys.shape[1], group)).flatten(2, 3)
        dots = (grouped @ keys.transpose(-1, -2) * layers.scale).unflatten(2, (group, rows)).flatten(1, 2)
        hidden = torch.ones(rows, run.end, dtype=torch.bool, device=keys.device).triu(run.end - rows + 1)
        logits = capped(dots, layers.softcap).masked_fill_(hidden, _OUT)
        total = logits.logsumexp(dim=-1, keepdim=True)
        sink = torch.full_like(total, _OUT)
        if layers.sinks is not None:
            sink = layers.sinks.float()[:, :, None, None].expand_as(total)
            total = torch.logaddexp(total, sink)
        logs = logits.sub_(total)
        top = logs.max(dim=-1, keepdim=True)
        return cls(logs=logs, sink=sink - total, top=top.values.exp(), top_at=top.indices)

    @property
    def nbytes(self) -> int:
        """Bytes of what is large."""
        return self.logs.nbytes

    def at(self, part: slice) -> "Seen":
        """Of some layers."""
        return Seen(logs=self.logs[part], sink=self.sink[part], top=self.top[part], top_at=self.top_at[part])


@torch.inference_mode()
def replay(
    trace: Trace,
    stack: Stack,
    *,
    seed: int = 0,
    dense_layers: Collection[int] = (),
    dense_question: bool = False,
    rows: str = "answer",
    measure_error: bool = True,
) -> dict[tuple[int, str], Tally]:
    """What the stack would have kept and missed at the traced rows: a tally per layer and phase.

    dense_question  only the rows of the answer are sparse, as in setup A
    rows            which rows are asked, see ROWS; the others are shown to what watches
    measure_error   compute attention outputs too

    Raises ConfigError for other rows, SahubError where a row has nothing selected.
    """
    tallies: dict[tuple[int, str], Tally] = {}
    asked = {"seed": seed, "dense_layers": dense_layers, "dense_question": dense_question, "rows": rows}
    for layers, run, selection, seen in selections(trace, stack, **asked):  # type: ignore[arg-type]
        _add(tallies, layers, run, _counted(layers, run, selection, seen, measure_error=measure_error))
    return tallies


def selections(
    trace: Trace,
    stack: Stack,
    *,
    seed: int,
    dense_layers: Collection[int],
    dense_question: bool,
    rows: str = "answer",
) -> Iterator[tuple[Layers, Run, Selection, Seen]]:
    """What the stack keeps at the rows that are asked, and what the dense softmax gives them. As `replay`."""
    if rows not in ROWS:
        raise ConfigError(f"rows={rows}: must be one of {', '.join(ROWS)}")
    runs = trace.runs(("decode",) if dense_question else ROWS[rows])
    shown, asked = [run for run in runs if not run.counted], [run for run in runs if run.counted]  # in this order
    for group, part in trace.batches(stack, sum(len(run.phases) for run in asked), dense_layers):
        layers = group.at(part)
        state = trace.state(stack, layers, seed, shown)
        for run in asked:
            selection = state.select(*layers.fed(state, run), scale=layers.scale, softcap=layers.softcap)
            yield layers, run, selection, _seen(trace, group, part, run)


def _seen(trace: Trace, group: Layers, part: slice, run: Run) -> Seen:
    """Of a part of a group: kept for the next stack where the whole group's is small."""
    heads = group.queries.shape[1]
    if len(group.numbers) * heads * len(run.phases) * run.end * 4 > SEEN_BYTES:
        return Seen.of(group.at(part), run)
    key = (group.numbers, run.part.start, run.part.stop)
    if key not in trace.seen:
        trace.seen[key] = Seen.of(group, run)
    found: Seen = trace.seen[key]
    return found.at(part)


def _counted(layers: Layers, run: Run, selection: Selection, seen: Seen, *, measure_error: bool) -> dict[str, Tensor]:
    """Numbers of every row, [l, q]: what is kept, what is missed of the softmax, and the error of the output."""
    kept, valid = selection.counts(), selection.rows.counts[:, None].double()
    logits, lost, missed = seen.logs, torch.zeros_like(seen.top), torch.zeros_like(seen.top)
    if selection.kind is not Kind.ALL:
        places, weights = selection.indices, selection.log_weight
        if bool((kept == 0).any()):
            raise SahubError("a row with valid keys had nothing selected: give the stack a sink, a window or a density")
        logs = seen.logs.gather(-1, places).masked_fill_(weights == _OUT, _OUT)
        lost = (1 - seen.sink.exp() - logs.exp().sum(-1, keepdim=True)).clamp_(min=0)
        is_top = (places == seen.top_at) & (weights > _OUT)
        missed = seen.top.masked_fill(is_top.any(-1, keepdim=True), 0.0)
        logits = logs + weights
    found = {
        "density": (kept / valid).mean(1),
        "kv_density": (selection.kv_counts() / valid).mean(1).expand(len(layers.numbers), -1),
        "selected": kept.double().mean(1),
        "mass_lost": lost.mean((1, 3)),
        "top1_missed": missed.mean((1, 3)),
        "worst_top1_missed": missed.amax((1, 3)),
    }
    if not measure_error:
        return found
    dense = layers.outputs[:, run.part]
    difference = _output(layers, run, selection, torch.cat([logits, seen.sink], dim=-1)) - dense
    return found | {"error": difference.square().sum((2, 3)), "norm": dense.square().sum((2, 3))}


def _output(layers: Layers, run: Run, selection: Selection, logits: Tensor) -> Tensor:
    """Attention [l, q, h, dv] by the kept keys' logits [l, h, q, s], the sink's last."""
    shares = logits.softmax(-1)[..., :-1]
    values = layers.values[:, :, : run.end].float()
    if selection.kind is not Kind.ALL:  # few rows: a product over all keys costs less than to gather values
        table = torch.zeros(*shares.shape[:3], run.end, device=shares.device)
        shares = table.scatter_add_(-1, selection.indices, shares)
    grouped = shares.unflatten(1, (values.shape[1], -1))
    output: Tensor = (grouped.flatten(2, 3) @ values).unflatten(2, grouped.shape[2:4])
    return output.flatten(1, 2).transpose(1, 2)


def _add(tallies: dict[tuple[int, str], Tally], layers: Layers, run: Run, found: Mapping[str, Tensor]) -> None:
    """Put the numbers of a run's rows to the tallies of their layers and phases; one wait for the device."""
    width = layers.outputs[0, 0].numel()
    phases = {phase: [row for row, of in enumerate(run.phases) if of == phase] for phase in dict.fromkeys(run.phases)}
    every = torch.stack([one.double() for one in found.values()], dim=-1).tolist()
    for number, of_layer in zip(layers.numbers, every, strict=True):
        for phase, rows in phases.items():
            numbers = zip(*(of_layer[row] for row in rows), strict=True)
            tally = tallies.setdefault((number, phase), Tally())
            tally.add_rows(dict(zip(found, numbers, strict=True)), width)
