"""One attention call, and what a scorer says of its keys: what stages, scorers and selectors speak of.

Axis letters: b batch, h query heads, g KV heads, q query rows of a call, k keys, d head dim, s slots, m units, p pages.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import NamedTuple

import torch
from torch import Tensor

from sahub.attention.products import Exact
from sahub.attention.rows import Rows
from sahub.attention.shared import Keys


@dataclass(frozen=True)
class Geometry:
    """The numbers of a model that the costs of a method depend on; heads are those of the layers that can be sparse."""

    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_dim: int
    full_layers: tuple[int, ...] | None = None  # that attend to all past keys, so that they can be sparse; None: all
    windows: tuple[int, ...] = ()  # tokens that each layer with a window holds; what is left holds no keys

    @property
    def layers(self) -> tuple[int, ...]:
        """The layers that can be sparse."""
        return tuple(range(self.num_layers)) if self.full_layers is None else self.full_layers

    def layers_of(self, learned: Iterable[int]) -> str:
        """How many layers something was learned of, for messages; with those of the model that it lacks, if few."""
        known = set(learned)
        lacking = [str(layer) for layer in self.layers if layer not in known]
        return f"{len(known)} layers" + (f" (without layer {', '.join(lacking)})" if 0 < len(lacking) <= 3 else "")


@dataclass(frozen=True, kw_only=True)
class Call:
    """One attention call of one layer: Q rows at the end of K keys; row i sits at key K - Q + i.

    Randomness is a function of (seed, example, layer, head, step, the row's valid keys), never of batch mates.
    """

    q: Tensor  # [b, h, q, d], after the rotary embedding
    k: Keys  # [b, g, k, d]; read only by oracles and by an index for the pages or blocks that the rows touch
    v: Keys  # [b, g, k, dv]; sequences may share a prefix of both
    scale: float  # of q.k before the softmax
    softcap: float | None = None  # bound of the logits, where the layer has one
    rows: Rows  # which keys each row may attend to
    valid: Tensor | None = None  # bool [b, k]: which keys were valid when they were appended; None = all
    density: float | None = None  # the budget that `of_budget` sizes are shares of, at this layer
    layer: int = 0
    seed: int = 0
    example: int = 0
    step: int = 0

    @property
    def num_heads(self) -> int:
        """Query heads."""
        return self.q.shape[1]

    @property
    def num_kv_heads(self) -> int:
        """KV heads; query head h reads KV head h // (num_heads // num_kv_heads)."""
        return self.k.shape[1]

    def capped(self, logits: Tensor) -> Tensor:
        """Logits as the softmax has them. Their order stays: only what counts shares of the softmax needs this."""
        return capped(logits, self.softcap)


def capped(logits: Tensor, softcap: float | None) -> Tensor:
    """softcap * tanh(logits / softcap), or the logits where there is no bound."""
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)


class Picks(NamedTuple):
    """Chosen units, int64 [b, h, q, s], and their log-weights, fp32: -inf = empty slot."""

    units: Tensor
    log_weight: Tensor


@dataclass(frozen=True, kw_only=True)
class Scores:
    """Approximate logits of the units of a call: keys, or pages of consecutive keys.

    logits     fp32 [b, h, q, m], multiplied by the softmax scale; units that a row cannot see may hold anything. Of the
               KV heads, [b, g, q, m], where the heads of each choose together. Who chooses by them may write to them
    page_size  tokens of a unit; 1 = the units are the keys
    first      position at which page 0 starts, int64 [b] (None = 0)
    exact      what settles their order; None = they are exact
    """

    logits: Tensor
    page_size: int = 1
    first: Tensor | None = None
    exact: Exact | None = None

    def settled(self) -> "Scores":
        """The same, exact themselves."""
        return self if self.exact is None else replace(self, logits=self.exact.every(), exact=None)

    @property
    def of_keys(self) -> bool:
        """Whether unit j is key j."""
        return self.page_size == 1 and self.first is None

    def starts(self) -> Tensor:
        """Position of the first key of each unit, int64 [b or 1, 1, m]."""
        starts = torch.arange(self.logits.shape[-1], device=self.logits.device)[None, None] * self.page_size
        return starts if self.first is None else starts + self.first[:, None, None]

    def unit_of(self, positions: Tensor) -> Tensor:
        """The unit that holds each key position [b, h, q, s]; clamped inside."""
        if self.first is not None:
            positions = positions - self.first[:, None, None, None]
        units = positions if self.page_size == 1 else positions.div(self.page_size, rounding_mode="floor")
        return units.clamp(0, self.logits.shape[-1] - 1)

    def keys_of(self, picks: Picks) -> Picks:
        """The picked units written out as key positions [b, h, q, s * page_size], each unit's most recent key first.

        Some may lie outside the row.
        """
        if self.of_keys:
            return picks
        first = 0 if self.first is None else self.first[:, None, None, None, None]
        offsets = torch.arange(self.page_size - 1, -1, -1, device=picks.units.device)
        keys = picks.units[..., None] * self.page_size + offsets + first
        return Picks(keys.flatten(-2), picks.log_weight.repeat_interleave(self.page_size, dim=-1))
