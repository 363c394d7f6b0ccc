"""Choosing among scored keys or pages: top_k, best, top_p, threshold and sample, each written once.

Ties are broken the same way everywhere: the higher score first, then the larger key index.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sahub.attention.call import Picks
from sahub.attention.products import Exact
from sahub.attention.rows import free_to_read
from sahub.attention.unsorted import without_sorting

_OUT = float("-inf")
_SIGN = 0x7FFFFFFF
_MANY, _FEW, _EVERY = 4096, 6, 16  # units from which a sample of every 16th tells where to cut, for a sixth or less


class _Ranked(NamedTuple):
    units: Tensor
    scores: Tensor


def _slots(num: Tensor, bound: int) -> int:
    """How many slots hold `num` units a row: exact where reading is free, else the bound."""
    if not free_to_read(num):
        return max(0, bound)
    return max(0, min(bound, int(num.max()))) if num.numel() else 0


def _ranked(scores: Tensor, num: int, exact: Exact | None = None, sure: int = 0) -> _Ranked:
    """The best `num` units of each row in order; -inf scores come last and are no candidates."""
    if free_to_read(scores) and scores.numel():
        return _ranked_by_looking(scores, num, exact, sure)
    scores = scores if exact is None else torch.where(scores > _OUT, exact.every(), _OUT)
    order = _ordered(scores, torch.arange(scores.shape[-1], device=scores.device))
    best = order.topk(num, dim=-1).values if num < scores.shape[-1] else order.sort(dim=-1, descending=True).values
    units = best & 0xFFFFFFFF
    return _Ranked(units, scores.gather(-1, units))


def _ordered(scores: Tensor, units: Tensor) -> Tensor:
    """int64 numbers that ascend with the score, then with the unit: no ties are left."""
    bits = (scores.float() + 0.0).view(torch.int32)  # -0.0 ties with 0.0
    order = bits.bitwise_xor((bits >> 31).bitwise_and_(_SIGN)).long()
    return order.bitwise_left_shift_(32).bitwise_or_(units)


def _ranked_by_looking(scores: Tensor, num: int, exact: Exact | None, sure: int) -> _Ranked:
    """The same by the scores alone, where these are far enough apart, and by what settles them only where not."""
    rows, size, width = scores.flatten(0, 2), scores.shape[-1], min(scores.shape[-1], num + 8)
    near = 0.0 if exact is None else 2 * exact.slack.flatten(0, 2)
    while True:  # until those that are left are surely behind the first `num`
        units, values = shortlist(rows, width, near)
        values, order = values.topk(width, dim=-1)
        if width == size or not num or not bool((values[:, -1:] >= values[:, num - 1, None] - near).any()):
            break
        width = min(size, 2 * width)
    units = units.gather(-1, order)
    close = values[:, :-1] - near <= values[:, 1:]
    if bool(close.any()):
        if exact is not None:
            close &= values[:, 1:] > _OUT
            settle = torch.nn.functional.pad(close, (0, 1)) | torch.nn.functional.pad(close, (1, 0))
            if sure:
                settle &= values <= values[:, min(sure, num) - 1, None] + near
            values = values.masked_scatter(settle, exact.at(settle.nonzero()[:, 0], units[settle]))
        order = _ordered(values, units).sort(dim=-1, descending=True).indices
        values, units = values.gather(-1, order), units.gather(-1, order)
    shape = *scores.shape[:3], num
    return _Ranked(units[:, :num].view(shape), values[:, :num].view(shape))


def _first(ranked: _Ranked, num: Tensor) -> Picks:
    """The first `num` [b or 1, h or 1, q] units of each row."""
    place = torch.arange(ranked.units.shape[-1], device=num.device)
    chosen = (place < num[..., None]) & (ranked.scores > _OUT)
    return Picks(ranked.units, torch.where(chosen, 0.0, _OUT))


def ranking(scores: Tensor) -> Tensor:
    """All units of scores [b, h, q, m] from the best to the last: int64, same shape."""
    return _ranked(scores, scores.shape[-1]).units


def top_k(scores: Tensor, num: Tensor, bound: int | None = None, exact: Exact | None = None, sure: int = 0) -> Picks:
    """The `num` [b or 1, h or 1, q] best units of scores [b, h, q, m] in order; fewer where fewer are above -inf.

    bound  the largest number that `num` can hold, when the caller knows it
    exact  what settles the order of the scores; None = they are exact
    sure   so many first units may come in any order
    """
    size = scores.shape[-1]
    return _first(_ranked(scores, _slots(num, size if bound is None else min(bound, size)), exact, sure), num)


def best(scores: Tensor, num: Tensor, bound: int | None = None, exact: Exact | None = None) -> Picks:
    """The units of `top_k`, where reading is free in the order of the units, which costs less than to rank them."""
    size = scores.shape[-1]
    width = _slots(num, size if bound is None else min(bound, size))
    if not free_to_read(scores) or not width or width == size:
        return top_k(scores, num, bound, exact)
    rows, nums = scores.flatten(0, 2), num.expand(scores.shape[:3]).flatten().clamp(min=0)
    if exact is None and (found := without_sorting(rows, nums)) is not None:
        return Picks(*(part.unflatten(0, scores.shape[:3]) for part in found))
    near = 0.0 if exact is None else 2 * exact.slack.flatten(0, 2)
    units, values = shortlist(rows, width, near)
    alike = bool((nums == width).all())
    ranked = values.topk(width, dim=-1, sorted=not alike).values
    last = ranked.amin(-1, keepdim=True) if alike else _at(ranked, nums)
    chosen = values > last + near
    open_ = (values >= last - near) & ~chosen & (values > _OUT)
    left = nums[:, None] - chosen.sum(-1, keepdim=True)
    if exact is None:  # ties: the larger unit first
        chosen |= open_ & (open_.flip(-1).cumsum(-1).flip(-1) <= left)
    elif bool((open_.sum(-1, keepdim=True) <= left).all()):
        chosen |= open_
    else:
        chosen |= _settled(units, open_, left, exact)
    return picked(chosen.view(*scores.shape[:3], -1), units.view(*scores.shape[:3], -1))


def _at(ranked: Tensor, nums: Tensor) -> Tensor:
    """The score of place `nums` of each row, inf for those that take none."""
    found = ranked.gather(-1, (nums[:, None] - 1).clamp(min=0))
    return found.masked_fill(nums[:, None] == 0, -_OUT)


def _settled(units: Tensor, open_: Tensor, left: Tensor, exact: Exact) -> Tensor:
    """Which of the `open_` ones are the `left` [r, 1] best of their row: bool [r, w]."""
    row, place = open_.nonzero(as_tuple=True)
    order = torch.full(open_.shape, -(1 << 63), dtype=torch.int64, device=open_.device)
    at = units[row, place]
    order[row, place] = _ordered(exact.at(row, at), at)
    widest = int(open_.sum(-1).max())
    top = order.topk(widest, dim=-1).values
    least = top.gather(-1, (left - 1).clamp(0, widest - 1))
    return open_ & (order >= least) & (left > 0)


def shortlist(rows: Tensor, num: int, near: Tensor | float = 0.0) -> tuple[Tensor, Tensor]:
    """Units of rows fp32 [r, m] among which their `num` best are, ascending, and their scores: [r, w]; empty ones -inf.

    near  [r, 1]: units that are so near to the last of the `num` are among them too
    Of many, a sample of the scores tells where to cut; where that leaves too few, all are listed.
    """
    count, size = rows.shape
    if size >= _MANY and num * _FEW <= size:
        part = rows[:, ::_EVERY]
        mean = num / _EVERY
        rank = min(part.shape[1], int(mean + 4 * mean**0.5) + 4)
        cut = part.topk(rank, dim=-1, sorted=False).values.amin(-1, keepdim=True)
        at = (rows >= cut - near).view(-1).nonzero()[:, 0]
        edges = torch.searchsorted(at, torch.arange(count + 1, device=at.device) * size)
        counts = edges.diff()
        if at.numel() * 2 <= rows.numel() and int(counts.min()) >= num:
            row = torch.arange(count, device=at.device).repeat_interleave(counts)
            width = int(counts.max())
            to = torch.arange(at.numel(), device=at.device) + (row * width - edges[row])
            units = at.new_zeros(count * width).index_put_((to,), at - row * size)
            values = rows.new_full((count * width,), _OUT).index_put_((to,), rows.reshape(-1)[at])
            return units.view(count, width), values.view(count, width)
    return torch.arange(size, device=rows.device).expand(count, -1), rows


def picked(chosen: Tensor, units: Tensor | None = None) -> Picks:
    """The units [b, h, q, w] (None = their places) that are chosen, bool, side by side. Looks at the values."""
    counts = chosen.sum(-1)
    width = int(counts.max()) if counts.numel() else 0
    at = chosen.reshape(-1).nonzero()[:, 0]
    found = at % chosen.shape[-1] if units is None else units.reshape(-1)[at]
    if bool((counts == width).all()):
        slots = found.view(*counts.shape, width)
        return Picks(slots, torch.zeros(slots.shape, device=slots.device))
    inside = torch.arange(width, device=at.device) < counts[..., None]
    slots = found.new_zeros(inside.shape).masked_scatter_(inside, found)
    return Picks(slots, torch.where(inside, 0.0, _OUT))


def threshold(scores: Tensor, least: float, most: Tensor | None = None) -> Picks:
    """Every unit with a score of at least `least`, the best `most` [b or 1, h or 1, q] of them."""
    enough = (scores >= least) & (scores > _OUT)
    if most is None and free_to_read(scores):
        return picked(enough)
    return best(scores, _limited(enough.sum(-1), most))


def _limited(num: Tensor, most: Tensor | None) -> Tensor:
    return num if most is None else torch.minimum(num, most.clamp(min=0))


def top_p(
    scores: Tensor,
    share: float,
    *,
    sizes: Tensor | None = None,
    taken: Tensor | None = None,
    most: Tensor | None = None,
    ties: bool = False,
) -> Picks:
    """The best units until they hold more than `share` of the mass: kept while the mass before is <= share.

    scores  logits [b, h, q, m], -inf = no candidate; mass of a unit = size * exp(logit)
    sizes   candidate keys of each unit, [b or 1, h or 1, q, m]; None = 1
    taken   log of the mass kept before, [b, h, q, 1] (-inf = none); None = the share is of the candidates' mass alone
    most    at most so many units, [b or 1, h or 1, q]
    ties    keep all that score as the last of them, too
    """
    top = scores.amax(dim=-1, keepdim=True)
    top = top if taken is None else torch.maximum(top, taken)
    top = top.masked_fill(top == _OUT, 0.0)
    every = torch.exp(scores - top).double()
    earlier = 0.0 if taken is None else torch.exp(taken - top).double()
    total = (every if sizes is None else every * sizes).sum(dim=-1, keepdim=True) + earlier
    width = max(1, scores.shape[-1] // 8) if free_to_read(scores) else scores.shape[-1]
    while True:  # where reading is free, rank only as many as are needed
        ranked = _ranked(scores, width)
        mass = every.gather(-1, ranked.units)
        if sizes is not None:
            mass = mass * sizes.expand_as(scores).gather(-1, ranked.units)
        kept = mass > 0
        if share < 1:
            kept &= mass.cumsum(-1) - mass + earlier <= share * total
        if ties:
            worst = ranked.scores.masked_fill(~kept, -_OUT).amin(dim=-1, keepdim=True)
            kept |= (ranked.scores >= worst) & (mass > 0)
        if width == scores.shape[-1] or not bool(kept[..., -1].any()):
            break
        width = min(4 * width, scores.shape[-1])
    num = _limited(kept.sum(-1), most)
    width = _slots(num, width)
    return _first(_Ranked(ranked.units[..., :width], ranked.scores[..., :width]), num)


def sample(candidates: Tensor, num: Tensor, noise: Tensor, bound: int | None = None) -> Picks:
    """`num` of the n candidates of each row without replacement, each kept with probability p = num / n exactly.

    candidates  bool [b, h, q, m];  noise  fp32 [b, h, q, m], see `noise`
    """
    population = candidates.sum(-1)
    num = torch.minimum(num, population)
    units, log_weight = best(noise.masked_fill(~candidates, _OUT), num, bound)
    chance = num.float() / population.clamp(min=1)
    return Picks(units, torch.where(log_weight > _OUT, -chance.log()[..., None], _OUT))
