"""Choosing keys by score: any scorer, at token or page granularity, with any selector."""

from dataclasses import replace
from functools import reduce

import numpy as np
import torch
from torch import Tensor

from sahub.attention.budgets import (
    at_layer,
    most_tokens,
    of_single_row,
    row_share,
    row_tokens,
    share_of,
)
from sahub.attention.call import Call, Picks, Scores
from sahub.attention.products import Exact, product, scored
from sahub.attention.rows import free_to_read
from sahub.attention.selection import Selection, spread
from sahub.attention.selector import Selector
from sahub.attention.selectors import best, threshold, top_k, top_p
from sahub.attention.shared import whole
from sahub.attention.unsorted import without_sorting

_OUT = float("-inf")


def choose(call: Call, taken: Selection, scores: Scores, selector: Selector) -> Selection:
    """The keys that `selector` adds to `taken` by `scores`; keys kept for certain are no candidates, nor full pages.

    A key that an earlier stage merely sampled is a candidate: it is raised to certain if it is chosen. Of pages, the
    keys that they add count, and of the last one those that the budget still holds are taken, the most recent first.
    """
    if selector.keeps_all:
        return taken.all()
    if selector.top_p is not None or selector.threshold is not None:
        scores = scores.settled()
    if selector.top_p is not None:
        scores = replace(scores, logits=call.capped(scores.logits))
    scores = _shared(call, taken, scores, selector.group)
    num, bound = budget(call, taken, selector, scores.logits.shape[1])
    if num is not None and selector.min_units:
        least = selector.min_units * scores.page_size
        num, bound = torch.where(num > 0, num.clamp(min=least), 0), max(bound, least)
    picks = _compiled(call, taken, scores, selector, num)
    if picks is None:
        picks = _in_torch(call, taken, scores, selector, num=num, bound=bound)
    if selector.group == "union":
        picks = union(call, picks)
    return taken.beside(*picks)


def _compiled(call: Call, taken: Selection, scores: Scores, selector: Selector, num: Tensor | None) -> Picks | None:
    """The best keys by a compiled loop; None where it is not made for the call, or cannot tell."""
    logits, rows = scores.logits, call.rows
    plain = selector.top_p is None and selector.threshold is None and scores.first is None and num is not None
    if not (plain and rows.mask is None and free_to_read(logits)):
        return None
    assert num is not None
    lead = logits.shape[:3]
    each = 1 if rows.num_rows == 1 and taken.slots.shape[1] == 1 else lead[1]
    held, weights = (
        spread(x, each).expand(lead[0], -1, lead[2], -1).flatten(0, 2) for x in (taken.slots, taken.weights)
    )
    ends = np.arange(rows.num_keys - rows.num_rows + 1, rows.num_keys + 1)
    ends = np.full(lead[0] * lead[1], ends[0]) if rows.num_rows == 1 else np.tile(ends, lead[0] * lead[1])
    found = without_sorting(
        logits.flatten(0, 2),
        num.expand(lead).flatten(),
        scores.exact,
        size=scores.page_size,
        ends=ends,
        held=(held, weights),
    )
    return None if found is None else Picks(*(part.view(*lead, -1) for part in found))


def _in_torch(
    call: Call, taken: Selection, scores: Scores, selector: Selector, *, num: Tensor | None, bound: int
) -> Picks:
    """The keys that a selector picks, by calls of torch."""
    before = _log_mass(taken, scores) if selector.top_p is not None and selector.mass == "total" else None
    logits, sizes = _candidates(call, taken, scores)
    if selector.top_p is not None:
        picks = top_p(logits, float(selector.top_p), sizes=sizes, taken=before, most=num, ties=selector.ties)
    elif selector.threshold is not None:
        picks = threshold(logits, float(selector.threshold), most=num)
    elif sizes is None:
        assert num is not None
        picks = best(logits, num, bound, scores.exact)
    else:
        assert num is not None
        most = bound // scores.page_size + 1 + _partial(sizes, scores.page_size, taken)
        sure = int(num.min()) // scores.page_size if free_to_read(num) else 0  # pages that are taken whole
        picks = top_k(logits, num.clamp(max=most), most, scores.exact, max(sure, 0))
    return picks if scores.of_keys else first_free(call, taken, scores.keys_of(picks), num, bound)


def _partial(sizes: Tensor, page_size: int, taken: Selection) -> int:
    """The most pages of a row that add some of their keys only; where reading is not free, a bound of that."""
    if not free_to_read(sizes):
        return min(sizes.shape[-1], taken.slots.shape[-1] + 2)
    partial = (sizes > 0) & (sizes < page_size)
    return int(partial.sum(-1).max()) if partial.numel() else 0


def first_free(call: Call, taken: Selection, picks: Picks, num: Tensor | None, bound: int) -> Picks:
    """Of keys in the order in which they are wanted, those that the row sees and nobody keeps: the first `num`."""
    keys = picks.units
    free = (picks.log_weight > _OUT) & call.rows.admits(keys)
    if taken.slots.shape[-1]:
        held = torch.where(taken.weights == 0, taken.slots, call.rows.num_keys)
        table = torch.zeros(*held.shape[:3], call.rows.num_keys + 1, dtype=torch.bool, device=keys.device)
        table = spread(table.scatter_(-1, held, True), keys.shape[1])
        free &= ~table.gather(-1, keys.clamp(0, call.rows.num_keys))
    place = free.cumsum(-1)
    if num is not None:
        free &= place <= num[..., None]
    width = int(free.sum(-1).max()) if free_to_read(free) and free.numel() else min(bound, keys.shape[-1])
    slots = keys.new_zeros(*keys.shape[:3], width + 1)
    slots.scatter_(-1, torch.where(free, place - 1, width), keys)
    inside = torch.arange(width, device=keys.device) < free.sum(-1, keepdim=True)
    return Picks(slots[..., :width], torch.where(inside, 0.0, _OUT))


def _shared(call: Call, taken: Selection, scores: Scores, group: str) -> Scores:
    """The same scores for all heads that share a KV head: their sum, or the largest.

    One row of scores for each KV head, unless the heads have taken other keys.
    """
    if group not in ("sum", "max"):
        return scores
    heads = call.num_heads // call.num_kv_heads
    one = taken.slots.shape[1] in (1, call.num_kv_heads)

    def join(each: Tensor, dim: int) -> Tensor:
        if group == "max":
            return each.amax(dim)
        return reduce(torch.add, each.unbind(dim))  # in one order, whatever the shape

    def joined(logits: Tensor) -> Tensor:
        found = join(logits.unflatten(1, (call.num_kv_heads, heads)), 2)
        return found if one else spread(found, call.num_heads)

    if scores.exact is None:
        return replace(scores, logits=joined(scores.logits))
    inner, num = scores.exact, call.rows.num_rows

    def at(row: Tensor, unit: Tensor) -> Tensor:
        of, at_row = row.numpy() // num, row.numpy() % num
        of = of if one else of // heads  # number of sequence and KV head
        each = (of[:, None] * heads + np.arange(heads)) * num + at_row[:, None]
        pairs = torch.from_numpy(each.ravel()), torch.from_numpy(unit.numpy().repeat(heads))
        return join(inner.at(*pairs).view(-1, heads), 1)

    slack = joined(inner.slack) * (2 if group == "sum" else 1)  # adding rounds, too
    exact = Exact(slack=slack, at=at, every=lambda: joined(inner.every()))
    return replace(scores, logits=joined(scores.logits), exact=exact)


def union(call: Call, picks: Picks) -> Picks:
    """For every KV head, the keys that any head of its group picked."""
    end = call.rows.num_keys
    chosen = torch.where(picks.log_weight > _OUT, picks.units, end).unflatten(1, (call.num_kv_heads, -1))
    keys = chosen.transpose(2, 3).flatten(3).sort(dim=-1).values
    once = keys < end
    once[..., 1:] &= keys[..., 1:] != keys[..., :-1]
    return Picks(keys.clamp(max=end - 1), torch.where(once, 0.0, _OUT))


def free_keys(call: Call, taken: Selection) -> Tensor:
    """The keys that each row sees and that are not kept for certain: bool [b, h, q, k], own memory for every head."""
    rows, visible = call.rows, call.rows.visible()
    free = torch.ones(
        rows.batch, call.num_heads, rows.num_rows, rows.num_keys + 1, dtype=torch.bool, device=rows.device
    )
    if visible is not None:
        free[..., :-1] &= visible[:, None]
    barred = spread(torch.where(taken.weights == 0, taken.slots, rows.num_keys), call.num_heads)
    return free.scatter_(-1, barred, False)[..., :-1]


def _candidates(call: Call, taken: Selection, scores: Scores) -> tuple[Tensor, Tensor | None]:
    """Logits with -inf for the units that cannot be added, and the number of keys each unit would add (None = 1)."""
    logits, certain = scores.logits, taken.weights == 0
    if scores.of_keys:
        visible = call.rows.visible()
        if visible is not None:
            logits = logits.masked_fill(~visible[:, None], _OUT)
        if taken.slots.shape[-1] == 0:
            return logits, None
        logits = logits.contiguous()
        slots, certain = (spread(x, logits.shape[1]) for x in (taken.slots, certain))
        if free_to_read(certain) and bool(certain.all()):
            return logits.scatter_(-1, slots, _OUT), None
        return logits.scatter_reduce_(-1, slots, torch.where(certain, _OUT, -_OUT), "amin"), None
    starts = scores.starts()
    sizes = (call.rows.before(starts + scores.page_size) - call.rows.before(starts))[:, None]
    if taken.slots.shape[-1]:
        units = scores.unit_of(taken.slots)
        full = torch.zeros(*units.shape[:3], logits.shape[-1], dtype=torch.int64, device=logits.device)
        full = full.scatter_add_(-1, units, certain.long())
        sizes = sizes - (full if full.shape[1] == 1 else spread(full, logits.shape[1]))
    return logits.masked_fill(sizes <= 0, _OUT), sizes


def _log_mass(taken: Selection, scores: Scores) -> Tensor:
    """Log of the softmax numerator that the certain keys already hold, by these scores: [b, h, q, 1]."""
    slots, weights = (spread(x, scores.logits.shape[1]) for x in (taken.slots, taken.weights))
    held = scores.logits.gather(-1, scores.unit_of(slots))
    return held.masked_fill(weights != 0, _OUT).logsumexp(-1, keepdim=True)


def budget(call: Call, taken: Selection, selector: Selector, heads: int) -> tuple[Tensor | None, int]:
    """Tokens to add for each row, at most, int64 [b or 1, heads or 1, q] (None = no limit); an upper bound of them."""
    rows, kept = call.rows, taken.num_kept()
    kept = kept[:, :: kept.shape[1] // heads] if kept.shape[1] > heads else kept
    kept = kept if kept.shape[1] == 1 else spread(kept, heads)
    if selector.heavy_size is not None:
        num = row_tokens(selector.heavy_size, rows, call.density, kept)
        return num, most_tokens(selector.heavy_size, rows.num_keys, call.density)
    density = at_layer(selector.max_density if selector.density is None else selector.density, call.layer)
    if density is None:
        return None, rows.num_keys
    most = share_of(density, rows.num_keys)
    if (plain := of_single_row(rows, kept)) is not None:
        return torch.full((1, 1, 1), most - plain), most
    return row_share(density, rows)[:, None] - kept, most


def exact_scores(call: Call, *, value_weighted: bool = False) -> Scores:
    """The true logits q.k * scale of every key, fp32; value_weighted adds log |v|. Reads all keys: for oracles."""
    grouped = call.q.unflatten(1, (call.num_kv_heads, -1))
    if not value_weighted:
        logits, exact = scored(grouped, whole(call.k), scale=call.scale)
        return Scores(logits=logits, exact=exact)
    logits = (
        product(grouped.flatten(2, 3), whole(call.k).mT).unflatten(2, grouped.shape[2:4]).flatten(1, 2) * call.scale
    )
    norms = torch.linalg.vector_norm(whole(call.v).float(), dim=-1).clamp(min=torch.finfo(torch.float32).tiny).log()
    return Scores(logits=logits + spread(norms, call.num_heads)[:, :, None])
