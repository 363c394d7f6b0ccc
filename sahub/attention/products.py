"""Products of queries with keys for scores: fp32 tells most keys apart, fp64 decides between those that it does not.

In fp32 the last bit of a sum depends on the shape of the product (one row or many, which column), so equal keys would
not tie, and a head alone would choose otherwise than in its group. fp64, rounded once, repeats.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from sahub.attention.rows import free_to_read
from sahub.attention.table import Table
from sahub.compiled.parallel import over_units
from sahub.compiled.present import at_hand

SMALL = 1 << 18  # multiplications up to which fp64 costs less than to look twice
_LONG = 64  # channels from which a compiled loop in fp64 takes no longer than torch in fp32
ROUNDING = 2.0**-24  # of fp32, relative


@dataclass(frozen=True, kw_only=True)
class Exact:
    """What settles an order of fp32 scores [b, h, q, m].

    slack  fp32 [b, h, q, 1]: how far a score may lie from the exact one
    at     the exact scores, fp32 [n], of n pairs of a row, int64 [n] and flat over (b, h, q), and a unit, int64 [n];
           asked only where reading is free
    every  the exact scores of all units, fp32 [b, h, q, m]
    """

    slack: Tensor
    at: Callable[[Tensor, Tensor], Tensor]
    every: Callable[[], Tensor]


def product(rows: Tensor, keys: Tensor) -> Tensor:
    """rows @ keys in fp32, rounded once."""
    if rows.device.type == "mps":  # has no fp64
        return rows.float() @ keys.float()
    return (rows.double() @ keys.double()).to(torch.float32)


def in_pairs(rows: Tensor, keys: Tensor) -> Tensor:
    """Each row's product with a key of its own, [..., d] both, in fp32, rounded once."""
    if rows.device.type == "mps":
        return (rows.float() * keys.float()).sum(-1)
    return (rows.double() * keys.double()).sum(-1, dtype=torch.float64).to(torch.float32)


def scored(
    rows: Tensor, keys: Tensor, *, longest: Tensor | None = None, scale: float = 1.0
) -> tuple[Tensor, Exact | None]:
    """Products of rows [b, u, r, q, d] with keys [b, u, m, d]: fp32 [b, u * r, q, m], and what settles their order.

    scale    of the products, once they are rounded
    longest  a bound of the keys' lengths, fp32 [b, u]; None = they are measured
    None in place of an Exact: the products are exact themselves, as where there are few, or reading is not free.
    """
    small = rows.numel() * keys.shape[2] <= SMALL
    if small or not free_to_read(rows) or keys.dtype not in (torch.float32, torch.float64):
        return _exact(rows, keys, scale), None
    found = of_single_rows(rows, keys)
    if found is not None:
        return found if scale == 1 else found.mul_(scale), None
    if longest is None:
        longest = torch.linalg.vector_norm(keys, dim=-1).amax(-1)
    size = torch.linalg.vector_norm(rows, dim=-1) * longest[:, :, None, None]
    slack = (size * (rows.shape[-1] + 4) * ROUNDING * scale).flatten(1, 2)[..., None]
    if not math.isfinite(float(slack.amax())):
        return _exact(rows, keys, scale), None
    fast = rows.flatten(2, 3) @ keys.mT
    fast = fast if scale == 1 else fast.mul_(scale)
    heads, num = rows.shape[1] * rows.shape[2], rows.shape[3]
    flat = rows.flatten(0, 3)

    def at(row: Tensor, unit: Tensor) -> Tensor:
        """fp64 of each pair alone."""
        batch, head = row // (heads * num), row // num % heads
        return in_pairs(flat[row], keys[batch, head // rows.shape[2], unit]) * scale

    return fast.view(-1, heads, num, keys.shape[2]), Exact(slack=slack, at=at, every=lambda: _exact(rows, keys, scale))


def of_single_rows(rows: Tensor, keys: Tensor, last: Tensor | None = None) -> Tensor | None:
    """Products of rows [b, u, r, 1, d] with keys [b, u, m, d] and, behind them, those of `last` [b, u, 1, d], exact.

    fp32 [b, u * r, 1, m or m + 1], by a compiled loop that makes no copy of the keys in fp64; None where it is not for
    them: several rows, few channels, no fp32, or memory that is not a CPU's.
    """
    known = rows.shape[3] == 1 and rows.shape[4] >= _LONG and rows.shape[:2] == keys.shape[:2]
    known &= rows.dtype == keys.dtype == torch.float32
    if not (known and free_to_read(keys) and at_hand()):
        return None
    from sahub.compiled.multiplying import multiplying  # takes a second to import

    behind = keys.new_empty(*keys.shape[:2], 0, keys.shape[3]) if last is None else last.contiguous()
    out = torch.empty(*rows.shape[:3], keys.shape[2] + behind.shape[2])
    memory, place = Table(keys).as_numpy()
    asked = rows[:, :, :, 0].contiguous().numpy()
    work, units = rows.numel() * out.shape[3], rows.shape[0] * rows.shape[1]
    over_units(multiplying(), units, work, asked, memory, place, behind.numpy(), out.numpy())
    return out.view(out.shape[0], -1, 1, out.shape[3])


def _exact(rows: Tensor, keys: Tensor, scale: float) -> Tensor:
    whole: Tensor = product(rows.flatten(2, 3), keys.mT).unflatten(2, rows.shape[2:4]).flatten(1, 2)
    return whole if scale == 1 else whole.mul_(scale)
