"""What a stack selects in one call, from scratch."""

from torch import Tensor

from sahub.attention.rows import rows_of
from sahub.attention.selection import Selection
from sahub.attention.stack import Stack


def select(
    stack: Stack,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    layer: int = 0,
    seed: int = 0,
    example: int = 0,
    step: int = 0,
) -> Selection:
    """What a stack selects for the rows q [b, h, q, d] at the end of k [b, g, k, d], v [b, g, k, dv], from scratch.

    The keys before the rows are the prefix: what an index learns from one (centroids, channels), it learns from them.

    mask  None | bool [b, k] (True = valid key) | bool [b, 1, q, k] (then a key is valid if any row may see it)
    """
    rows_of(q, k, mask)  # shapes first
    state = stack.new_state(layer=layer, seed=seed, example=example)
    valid = mask.any(dim=2)[:, 0] if mask is not None and mask.dim() == 4 else mask
    prefix = k.shape[2] - q.shape[2]
    for part in (slice(prefix), slice(prefix, None)):
        state.append(k[:, :, part], v[:, :, part], None if valid is None else valid[:, part])
        if part.stop == prefix:
            state.freeze()
    return state.select(q, k, v, mask=mask, scale=scale, softcap=softcap, step=step)
