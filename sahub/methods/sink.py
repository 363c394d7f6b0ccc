"""Sink: keep the first keys of the sequence."""

from dataclasses import dataclass, field

import torch

from sahub.attention.budgets import Size, check_size, most_tokens, row_tokens, tokens_of
from sahub.attention.call import Call
from sahub.attention.selection import Selection
from sahub.attention.stage import Index, Stage


@dataclass(frozen=True, kw_only=True)
class Sink(Stage):
    """Attend to the first `sink_size` valid keys.

    kept(i) = {j : rank of j among the row's valid keys < sink_size}

    Source   Xiao et al. 2023, arXiv:2309.17453, sec. 3
    Differs  the first valid keys, so that left padding moves nothing
    Memory   0 bits per key and KV head
    """

    batched = True
    by_position = True

    sink_size: Size = field(
        metadata={
            "unit": "tokens",
            "search": {"low": 1, "high": 256, "log": True},
            "share": {
                "of_budget": 0.125,
                "at_least": 1,
                "at_most": 128,
                "search": {"low": 0.01, "high": 0.25, "log": True},
            },
        }
    )

    def __post_init__(self) -> None:
        check_size("sink_size", self.sink_size)

    def span(self, call: Call, kept: int) -> range:
        """The first keys."""
        return range(tokens_of(self.sink_size, call.rows.num_keys, call.density, kept))

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The first valid keys, the same for every head."""
        del index
        rows, size = call.rows, most_tokens(self.sink_size, call.rows.num_keys, call.density)
        if size >= rows.num_keys:
            return taken.all()
        ranks = torch.arange(size, device=rows.device)
        inside = ranks < row_tokens(self.sink_size, rows, call.density, taken.num_kept())[..., None]
        weight = torch.where(inside, 0.0, float("-inf"))
        return taken.of(rows.positions(ranks[None, None])[:, None], weight)

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Only as the share 1.0."""
        return isinstance(self.sink_size, float) and self.sink_size == 1
