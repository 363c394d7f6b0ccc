"""Local: keep the most recent keys."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sahub.attention.budgets import (
    Density,
    Size,
    at_layer,
    check_density,
    check_size,
    most_tokens,
    row_share,
    row_tokens,
    share_of,
    tokens_of,
)
from sahub.attention.call import Call
from sahub.attention.rows import Rows
from sahub.attention.selection import Selection
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Local(Stage):
    """Attend to a sliding window that ends at the row's own key.

    window_size  kept(i) = the window_size most recent valid keys
    density      kept(i) = the most recent valid keys not yet kept, until density * N(i) are kept in total

    Source   Child et al. 2019, arXiv:1904.10509; with sinks Xiao et al. 2023, arXiv:2309.17453
    Differs  counts valid keys, so that padding moves nothing
    Memory   0 bits per key and KV head
    """

    batched = True
    by_position = True

    window_size: Size | None = field(
        default=None,
        metadata={
            "unit": "tokens",
            "search": {"low": 8, "high": 512, "log": True},
            "share": {
                "of_budget": 0.25,
                "at_least": 1,
                "at_most": 128,
                "search": {"low": 0.02, "high": 0.75, "log": True},
            },
        },
    )
    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys"})

    def __post_init__(self) -> None:
        if (self.window_size is None) == (self.density is None):
            raise ConfigError(f"window_size={self.window_size}, density={self.density}: exactly one must be set")
        if self.window_size is not None:
            check_size("window_size", self.window_size)
        else:
            check_density("density", self.density)

    def span(self, call: Call, kept: int) -> range:
        """The last keys, of which none is kept already."""
        end, density = call.rows.num_keys, at_layer(self.density, call.layer)
        if density is not None:
            return range(end - max(0, share_of(density, end) - kept), end)
        assert self.window_size is not None
        return range(end - tokens_of(self.window_size, end, call.density, kept), end)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The most recent valid keys; a window is the same for every head."""
        del index
        rows = call.rows
        density = at_layer(self.density, call.layer)
        size = _most(rows, self.window_size, density, call.density)
        if size >= rows.num_keys:
            return taken.all()
        ages = torch.arange(size, device=rows.device)  # 0 = the row's newest key
        ranks = rows.counts[..., None] - 1 - ages
        if density is None:
            assert self.window_size is not None
            num = row_tokens(self.window_size, rows, call.density, taken.num_kept())
            chosen = (ages < num[..., None]) & (ranks >= 0)[:, None]
        else:
            free = ~_kept_by_age(rows, taken, size) & (ranks >= 0)[:, None]
            left = row_share(density, rows)[:, None] - taken.num_kept()
            chosen = free & (free.cumsum(-1) <= left[..., None])
        return taken.of(rows.positions(ranks)[:, None], torch.where(chosen, 0.0, float("-inf")))

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Only as the share 1.0."""
        shares = self.density if isinstance(self.density, (list, tuple)) else [self.density]
        return all(share == 1 for share in shares) or (isinstance(self.window_size, float) and self.window_size == 1)


def _most(rows: Rows, window_size: Size | None, density: float | None, budget: float | None) -> int:
    """The most keys that any row can keep: tokens."""
    if density is not None:
        return share_of(density, rows.num_keys)
    assert window_size is not None
    return most_tokens(window_size, rows.num_keys, budget)


def _kept_by_age(rows: Rows, taken: Selection, size: int) -> Tensor:
    """Whether the row's key of age 0 .. size - 1 is kept already: bool [b, h or 1, q, size]."""
    ages = rows.counts[:, None, :, None] - 1 - rows.before(taken.slots)
    ages = torch.where((taken.weights > float("-inf")) & (ages < size), ages, size)
    table = torch.zeros(*ages.shape[:3], size + 1, dtype=torch.bool, device=ages.device)
    return table.scatter_(-1, ages, True)[..., :size]
