"""Choosing among scored keys or pages: top_k, top_p, threshold and sample, each written once, in fp32.

Ties are broken the same way everywhere: the higher score first, then the larger key index.
"""

from typing import NamedTuple

import torch
from torch import Tensor

from sahub.attention.call import Call, Picks
from sahub.attention.rows import free_to_read

_OUT = float("-inf")
_SIGN = 0x7FFFFFFF


class _Ranked(NamedTuple):
    units: Tensor
    scores: Tensor


def _slots(num: Tensor, bound: int) -> int:
    """How many slots hold `num` units a row: exact where reading is free, else the bound."""
    if not free_to_read(num):
        return max(0, bound)
    return max(0, min(bound, int(num.max()))) if num.numel() else 0


def _ranked(scores: Tensor, num: int) -> _Ranked:
    """The best `num` units of each row in order; -inf scores come last and are no candidates."""
    bits = (scores.float() + 0.0).view(torch.int32)  # -0.0 ties with 0.0
    order = bits.bitwise_xor_((bits >> 31).bitwise_and_(_SIGN)).long()  # ascending with the score
    order.bitwise_left_shift_(32).bitwise_or_(torch.arange(scores.shape[-1], device=scores.device))  # no ties are left
    best = order.topk(num, dim=-1).values if num < scores.shape[-1] else order.sort(dim=-1, descending=True).values
    units = best & 0xFFFFFFFF
    return _Ranked(units, scores.gather(-1, units))


def _first(ranked: _Ranked, num: Tensor) -> Picks:
    """The first `num` [b or 1, h or 1, q] units of each row."""
    place = torch.arange(ranked.units.shape[-1], device=num.device)
    chosen = (place < num[..., None]) & (ranked.scores > _OUT)
    return Picks(ranked.units, torch.where(chosen, 0.0, _OUT))


def top_k(scores: Tensor, num: Tensor, bound: int | None = None) -> Picks:
    """The `num` [b or 1, h or 1, q] best units of scores [b, h, q, m]; fewer where fewer are above -inf.

    bound  the largest number that `num` can hold, when the caller knows it
    """
    size = scores.shape[-1]
    return _first(_ranked(scores, _slots(num, size if bound is None else min(bound, size))), num)


def threshold(scores: Tensor, least: float, most: Tensor | None = None) -> Picks:
    """Every unit with a score of at least `least`, the best `most` [b or 1, h or 1, q] of them."""
    return top_k(scores, _limited((scores >= least).sum(-1), most))


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
    units, log_weight = top_k(noise.masked_fill(~candidates, _OUT), num, bound)
    chance = num.float() / population.clamp(min=1)
    return Picks(units, torch.where(log_weight > _OUT, -chance.log()[..., None], _OUT))


def noise(call: Call) -> Tensor:
    """Uniform numbers in [0, 1), fp32 [b, h, q, k], the same on every device.

    A function of (seed, example, layer, step, head, the row's number of valid keys, the key's rank among them), so that
    left padding, batch mates and the chunking of the rows do not change them.
    """
    rows = call.rows
    key = 0
    for part in (call.seed, call.example, call.layer, call.step):
        key = _mix_int(key ^ (part & _MASK64))
    heads = torch.arange(call.num_heads, device=rows.device)
    row = _mix(_mix(heads + _signed(key))[None, :, None] ^ rows.counts[:, None])  # [b or 1, h, q]
    rank = rows.before(torch.arange(rows.num_keys, device=rows.device)[None, None])  # [b or 1, q, k]
    bits = _mix(row[..., None] ^ _mix(rank)[:, None])
    uniform = ((bits >> 40) & 0xFFFFFF).float() * 2.0**-24
    return uniform.expand(rows.batch, -1, -1, -1)


_MASK64 = (1 << 64) - 1
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # SplitMix64


def _mix_int(x: int) -> int:
    x = (x + _MIX[0]) & _MASK64
    x = ((x ^ (x >> 30)) * _MIX[1]) & _MASK64
    x = ((x ^ (x >> 27)) * _MIX[2]) & _MASK64
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _mix(x: Tensor) -> Tensor:
    """`_mix_int` on int64 tensors, whose products wrap the same way."""
    x = x + _signed(_MIX[0])
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _signed(_MIX[1])
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _signed(_MIX[2])
    return x ^ ((x >> 31) & ((1 << 33) - 1))
