"""Which keys each row of a call may attend to: causality and padding, without a tensor per head."""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from sahub.attention.shared import Keys
from sahub.errors import ConfigError

_AWAY = 1 << 27  # elements of a temporary on a GPU: 512 MB in fp32


@dataclass(frozen=True, eq=False)
class Rows:
    """The valid keys of Q rows at the end of K keys; row i sees a subset of the keys 0 .. K - Q + i.

    mask  None (every key is valid) | bool [b, k] (True = valid key) | bool [b, 1, q, k] (True = the row may see it)
    Memory  nothing of size k without a mask, [b, k] for a key mask, [b, q, k] for a row mask.
    """

    batch: int
    num_rows: int
    num_keys: int
    device: torch.device
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        if not 1 <= self.num_rows <= self.num_keys:
            raise ConfigError(
                f"q has {self.num_rows} rows for {self.num_keys} keys: rows are the last keys' own, 1 <= Q <= K"
            )
        if self.mask is None:
            return
        shapes = ((self.batch, self.num_keys), (self.batch, 1, self.num_rows, self.num_keys))
        if self.mask.dtype != torch.bool or tuple(self.mask.shape) not in shapes:
            raise ConfigError(
                f"mask={self.mask.dtype} {list(self.mask.shape)}: must be bool, True = valid, "
                f"{list(shapes[0])} or {list(shapes[1])} (a mask per head is not supported)"
            )

    @cached_property
    def last(self) -> Tensor:
        """Position of each row's own key, int64 [q]."""
        return torch.arange(self.num_keys - self.num_rows, self.num_keys, device=self.device)

    @property
    def single(self) -> int | None:
        """N(i) as a plain number where every row has the same: one row, no mask. None where that needs a look."""
        return self.num_keys if self.mask is None and self.num_rows == 1 else None

    @cached_property
    def _running(self) -> Tensor:
        """Number of valid keys before a position: int64 [b, k + 1], or [b, q, k + 1] for a row mask."""
        assert self.mask is not None
        allowed = self.mask if self.mask.dim() == 2 else self.visible()
        assert allowed is not None
        return torch.nn.functional.pad(allowed.cumsum(-1), (1, 0))

    @cached_property
    def counts(self) -> Tensor:
        """N(i): number of valid keys of each row, int64 [b or 1, q]."""
        if self.mask is None:
            return self.last[None] + 1
        if self.mask.dim() == 2:
            return self._running[:, self.num_keys - self.num_rows + 1 :]
        return self._running[..., -1]

    @cached_property
    def _order(self) -> Tensor:
        """Positions of the valid keys in ascending order, then the others: int64 [b, 1 or q, k]."""
        assert self.mask is not None
        allowed = self.mask[:, None] if self.mask.dim() == 2 else self.visible()
        assert allowed is not None
        return allowed.logical_not().to(torch.uint8).sort(dim=-1, stable=True).indices

    def positions(self, ranks: Tensor) -> Tensor:
        """Positions of the row's valid keys number `ranks` (0 = oldest), int64 [b or 1, q or 1, s]; clamped."""
        ranks = ranks.clamp(0, self.num_keys - 1)
        if self.mask is None:
            return ranks
        order = self._order
        rows = max(order.shape[1], ranks.shape[1])
        return order.expand(self.batch, rows, -1).gather(-1, ranks.expand(self.batch, rows, -1))

    def before(self, positions: Tensor) -> Tensor:
        """How many valid keys of each row lie before `positions`, int64 [b or 1, (h,) q or 1, s]; any integer."""
        positions = torch.minimum(positions.clamp(min=0), (self.last + 1)[:, None])
        if self.mask is None:
            return positions
        lead = (self.batch, *positions.shape[1:-1])
        running = self._running[:, None] if self.mask.dim() == 2 else self._running
        running = running[:, None] if positions.dim() == 4 else running
        return running.expand(*lead, -1).gather(-1, positions.expand(*lead, -1))

    def admits(self, positions: Tensor) -> Tensor:
        """Whether each row may see the keys at `positions` int64 [b, h, q, s]; out of range is False."""
        inside = (positions >= 0) & (positions <= self.last[:, None])
        if self.mask is None:
            return inside
        mask = self.mask[:, None, None] if self.mask.dim() == 2 else self.mask
        heads = positions.shape[1]
        table = mask.expand(self.batch, heads, self.num_rows, self.num_keys)
        return inside & table.gather(-1, positions.clamp(0, self.num_keys - 1).expand(self.batch, -1, -1, -1))

    def visible(self, part: slice = slice(None)) -> Tensor | None:
        """bool [b or 1, part of q, k], or None when every row of the part sees every key."""
        if self.mask is None and self.num_rows == 1:
            return None
        causal = torch.arange(self.num_keys, device=self.device) <= self.last[part, None]
        if self.mask is None:
            return causal[None]
        return (self.mask[:, None] if self.mask.dim() == 2 else self.mask[:, 0, part]) & causal


def free_to_read(x: Tensor) -> bool:
    """Whether looking at values costs nothing: on the CPU. Elsewhere it would wait for the device at every step."""
    return x.device.type == "cpu"


def at_once(device: torch.device, cached: int) -> int:
    """Elements of a temporary: `cached` on a CPU, for its caches; elsewhere many: every call costs microseconds."""
    return cached if device.type == "cpu" else _AWAY


def says_nothing(mask: Tensor) -> bool:
    """Whether a mask is True throughout, looked at only where reading is free."""
    return free_to_read(mask) and bool(mask.all())


def rows_of(q: Tensor, k: Keys, mask: Tensor | None) -> Rows:
    """Rows of a call with q [b, h, q, d] and k [b, g, k, d]; shapes that cannot belong together raise ConfigError."""
    if q.dim() != 4 or k.dim() != 4 or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3] or q.shape[1] % k.shape[1]:
        raise ConfigError(
            f"q {list(q.shape)}, k {list(k.shape)}: must be [b, h, q, d] and [b, g, k, d] with h a multiple of g"
        )
    return Rows(q.shape[0], q.shape[2], k.shape[2], q.device, mask)
