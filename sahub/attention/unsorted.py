"""The best units of a row without ranking them, where a compiled loop can tell."""

import numpy as np
import torch
from torch import Tensor

from sahub.attention.call import Picks
from sahub.attention.products import Exact
from sahub.compiled.parallel import over_units
from sahub.compiled.present import at_hand

_NOTHING = np.empty((1, 0), np.int64), np.empty((1, 0), np.float32)
_OUT = float("-inf")
_UNSURE = 64  # units a row whose order may be left open


def without_sorting(
    rows: Tensor,
    nums: Tensor,
    exact: Exact | None = None,
    *,
    size: int = 1,
    ends: np.ndarray | None = None,
    held: tuple[Tensor, Tensor] | None = None,
) -> Picks | None:
    """The keys of the best units of rows fp32 [r, m], int64 [r] of each, ascending: [r, w], by a compiled loop.

    size  of a unit, in keys
    ends  int64 [r]: each row sees the first so many keys; None = all
    held  int64 [w, s] with log-weights, w dividing r: keys that are no candidates where these are 0
    None where the loop is not at hand, not made for the numbers, or cannot tell.
    """
    if rows.dtype != torch.float32 or not at_hand():
        return None
    from sahub.compiled.choosing import choosing  # takes a second to import

    num, rows, need = rows.shape[0], rows.contiguous(), nums.contiguous().numpy()
    near = np.zeros(num, np.float32) if exact is None else (2 * exact.slack).view(-1).numpy()
    slots, counts = np.empty((num, max([0, *need.tolist()])), np.int64), np.empty(num, np.int64)
    unsure = np.empty((0 if exact is None else _UNSURE * num, 2), np.int64)
    kept = _NOTHING if held is None else [x.numpy() for x in held]
    ends = np.full(num, size * rows.shape[1]) if ends is None else ends
    choice = rows.numpy(), near, size, ends, *kept, need, slots, counts, unsure
    left = over_units(choosing(), num, rows.numel(), *choice)
    if min(left.values()) >= 0 and any(left.values()):
        assert exact is not None
        noted = np.concatenate([unsure[first * _UNSURE :][:many] for first, many in left.items()])
        row, unit = noted.T
        rows.numpy()[row, unit] = exact.at(*torch.from_numpy(noted).unbind(1)).numpy()
        near[:] = -1
        near[row] = 0  # only those anew
        left = over_units(choosing(), num, rows.numel(), *choice)
    if min(left.values()) < 0:
        return None
    each = counts.tolist()  # of few rows, less than numpy's calls
    width, least = max(each), min(each)
    found, weights = torch.from_numpy(slots)[:, :width], torch.zeros(num, width)
    if least < width:
        empty = torch.from_numpy(np.arange(width) >= counts[:, None])
        found, weights = found.masked_fill(empty, 0), weights.masked_fill_(empty, _OUT)
    return Picks(found, weights)
