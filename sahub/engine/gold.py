"""Where the gold answer stands in a context, and which layers and heads of a stack lost their attention to it."""

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from sahub.attention.selection import Kind, Selection, spread
from sahub.attention.stack import Stack
from sahub.engine.record import record_each
from sahub.engine.replay import selections
from sahub.engine.session import Session
from sahub.engine.trace import Trace
from sahub.fidelities import Asked

MOST_PLACES = 8  # of one gold answer: what stands in more of them is too common to be where the answer is from
_OUT = float("-inf")


def places(text: str, references: Sequence[str]) -> list[tuple[int, int]]:
    """Where the gold answers stand in a text, as whole words: (first character, one behind the last), in order."""
    found: set[tuple[int, int]] = set()
    for gold in filter(str.strip, references):
        whole = re.compile(rf"(?<!\w){re.escape(gold.strip())}(?!\w)", re.ASCII)
        spans = [match.span() for match in whole.finditer(text)]
        found |= {*spans} if len(spans) <= MOST_PLACES else set()
    return sorted(found)


def token_spans(tokenizer: Any, ids: Sequence[int], references: Sequence[str]) -> list[tuple[int, int]]:
    """The same in tokens of a context."""

    def characters(num: int) -> int:
        return len(tokenizer.decode(list(ids[:num]), clean_up_tokenization_spaces=False))

    text, every = tokenizer.decode(list(ids), clean_up_tokenization_spaces=False), range(len(ids) + 1)
    return [
        (bisect_right(every, start, key=characters) - 1, bisect_left(every, stop, key=characters))
        for start, stop in places(text, references)
    ]


def dropped(
    session: Session, asked: Asked, context_ids: Sequence[int], references: Sequence[str]
) -> dict[str, Any] | None:
    """What the stack lost of the gold answer at one question, by `lost_weight`, with the `spans` of it in tokens.

    None where the answer does not stand in the context.
    """
    spans = token_spans(session.model.tokenizer, context_ids, references)
    if not spans:
        return None
    attention, keys = asked.attention, [at for span in spans for at in range(*span)]
    assert attention.stack is not None
    protocol = {name: getattr(attention, name) for name in ("seed", "dense_layers", "dense_question")}
    told: dict[str, list[Any]] = {"layers": [], "weight": [], "lost": []}

    def note(trace: Trace) -> None:
        for name, found in lost_weight(trace, attention.stack, keys, **protocol).items():
            told[name] += found

    with session.recording(asked.prefix, len(asked.question)) as prefix:
        record_each(session.model, prefix, asked.question, asked.dense.ids, note)
    return {"spans": [list(span) for span in spans], **told}


@torch.inference_mode()
def lost_weight(trace: Trace, stack: Stack, keys: Sequence[int], **protocol: Any) -> dict[str, list[Any]]:
    """Dense attention to some keys, and the part of it on those that the stack did not keep.

    Of every traced layer, [l], and head: the largest `weight` [l, h] and the largest `lost` [l, h] of the rows that
    give the answer's tokens. `protocol`: seed, dense_layers and dense_question of `replay`.
    """
    at = torch.tensor(sorted({*keys}))
    found: dict[int, Tensor] = {}
    for layers, _, selection, seen in selections(trace, stack, **protocol):
        weight = seen.logs[..., at.to(seen.logs.device)].exp()
        lost = weight.masked_fill(spread(_kept(selection, at), weight.shape[1]), 0.0)
        both = torch.stack([weight.sum(-1), lost.sum(-1)], dim=1).amax(-1).cpu()  # [l, 2, h]
        for number, one in zip(layers.numbers, both, strict=True):
            found[number] = torch.maximum(one, found.get(number, one))
    weights, losts = ([_rounded(found[number][which]) for number in sorted(found)] for which in (0, 1))
    return {"layers": sorted(found), "weight": weights, "lost": losts}


def _kept(selection: Selection, at: Tensor) -> Tensor:
    """Whether each row keeps these keys: bool [l, u, q, s], u as of the selection's slots."""
    if selection.kind is Kind.ALL:
        return torch.ones(1, 1, 1, 1, dtype=torch.bool, device=selection.rows.device)
    return selection.dense_log_weight(slice(None), _OUT)[..., at.to(selection.rows.device)] > _OUT


def _rounded(row: Tensor) -> list[float]:
    return [round(float(one), 4) for one in row]
