"""Keep sets: the first rows after the prefix are its observers, and what they say of its keys stands from then on."""

from collections.abc import Hashable
from dataclasses import dataclass, field, fields, replace
from typing import ClassVar

import torch
from torch import Tensor

from sahub.attention.budgets import Density, Size, is_count
from sahub.attention.call import Call, Geometry, Picks, Scores
from sahub.attention.choose import budget, choose, first_free, union
from sahub.attention.rows import Rows
from sahub.attention.selection import Selection, spread
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.selectors import ranking
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError
from sahub.index.observed import Observed
from sahub.index.observers import Observers

_OUT = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Observing(Stage):
    """Base of the methods that let observers decide, once, which keys of the prefix are kept.

    Prefills are shared by all methods and leave no queries behind, so that the observers are the `window_size` rows
    after the prefix. Each of these rows is served by the observers up to itself. Keys after the prefix are taken before
    all of its keys, the most recent first. Nothing is evicted, so that every budget can be tried on one prefix. The
    order in which keys are wanted stands, once the last observer was seen.
    """

    watches: ClassVar[bool] = True
    by_head: ClassVar[bool] = False  # whether what each KV head's queries want is asked of them alone
    batched = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    window_size: int = field(default=32, metadata={"unit": "rows", "search": {"choices": [8, 16, 32, 64]}})

    def __post_init__(self) -> None:
        if not is_count(self.window_size) or self.window_size < 1:
            raise ConfigError(f"window_size={self.window_size}: must be at least 1 row")
        self.selector  # noqa: B018  (checks the budget fields)

    @property
    def selector(self) -> Selector:
        """What `density` or `heavy_size` asks for."""
        return Selector.of(density=self.density, heavy_size=self.heavy_size)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The most recent keys after the prefix, then those that the observers want."""
        assert isinstance(index, Observers)
        if index.stands(call):
            return self._standing(call, taken, index)
        wanted, start = self._told(call, index)
        wanted = spread(wanted, max(wanted.shape[1], taken.slots.shape[1]))
        largest = wanted.amax(dim=-1, keepdim=True).clamp(min=0) if start else 0
        num_later = call.rows.num_keys - start
        later = torch.arange(1, num_later + 1, device=wanted.device, dtype=wanted.dtype) + largest
        wanted = torch.cat([wanted, later.expand(*wanted.shape[:3], -1)], dim=-1)
        return choose(call, taken, Scores(logits=wanted), self.selector)

    def _told(self, call: Call, index: Observers) -> tuple[Tensor, int]:
        """What is wanted, some heads at a time where they do not ask each other, and the length of the prefix."""
        observed = index.of(call, self._key)
        parts = observed.parts() if self.by_head else [observed]
        wanted = [self.joined(part.call, self.wanted(part.call, part)) for part in parts]
        index.keep(self._key, observed)
        return wanted[0] if len(wanted) == 1 else torch.cat(wanted, dim=1), observed.start

    @property
    def _key(self) -> Hashable:
        """What decides which keys are wanted."""
        budgets = ("density", "heavy_size", "window_size")
        return type(self), *(getattr(self, one.name) for one in fields(self) if one.name not in budgets)

    def _standing(self, call: Call, taken: Selection, index: "Observers") -> Selection:
        """The same for rows after the last observer, for which the order of the prefix's keys is known."""
        order = index.order(self._key, lambda: self._order(call, index))
        order = spread(order, max(order.shape[1], taken.slots.shape[1]))
        num, bound = budget(call, taken, self.selector, order.shape[1])
        held = call.rows.mask is None or call.rows.mask is call.valid
        width = bound + taken.slots.shape[-1] + call.rows.num_rows - 1 if held else call.rows.num_keys
        later = torch.arange(call.rows.num_keys - 1, order.shape[-1] - 1, -1, device=order.device)[:width]
        units = torch.cat([later.expand(*order.shape[:2], -1), order[..., :width].long()], dim=-1)
        units = units[:, :, None].expand(-1, -1, call.rows.num_rows, -1)
        picks = first_free(call, taken, Picks(units, torch.zeros((), device=units.device)), num, bound)
        return taken.beside(*(union(call, picks) if self.selector.group == "union" else picks))

    def _order(self, call: Call, index: "Observers") -> Tensor:
        """The prefix's keys as they are wanted after the last observer: int32 [b, h or 1, start]."""
        last = replace(call, q=call.q[:, :, -1:], rows=Rows(call.rows.batch, 1, call.rows.num_keys, call.rows.device))
        wanted, _ = self._told(last, index)
        if call.valid is not None:
            wanted = wanted.masked_fill(~call.valid[:, None, None, : wanted.shape[-1]], _OUT)
        return ranking(wanted)[:, :, 0].int()

    def wanted(self, call: Call, observed: Observed) -> Tensor:
        """How much each key of the prefix is wanted for each row: fp32 [b, h or 1, q, start], above -inf."""
        raise NotImplementedError

    def joined(self, call: Call, wanted: Tensor) -> Tensor:
        """The same for heads that choose together: fp32 [b, h or g or 1, q, start]."""
        del call
        return wanted

    def index_key(self) -> Hashable:
        """The observers depend on their number alone; methods share them."""
        return "observers", self.window_size

    def new_index(self, *, layer: int, seed: int, example: int) -> "Observers":
        """No observer yet."""
        del layer, seed, example
        return Observers(self.window_size)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """The observers' queries in 16 bits a channel."""
        group = geometry.num_heads // geometry.num_kv_heads
        return group * 16 * self.window_size * geometry.head_dim / num_keys

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all


@dataclass(frozen=True, kw_only=True)
class ObservingByHead(Observing):
    """Base of those whose query heads want different keys; those that share a KV head may choose together.

    group  none: each head its own keys; union: all attend to what any of them chose; sum, max: all the same keys, by
           the sum or the largest of their weights, of which each head's sum to 1
    """

    by_head = True

    group: str = field(default="none", metadata={"unit": " | ".join(GROUPS)})

    @property
    def selector(self) -> Selector:
        """What `density` or `heavy_size` asks for; heads that choose by one score are joined before."""
        found = Selector.of(density=self.density, heavy_size=self.heavy_size, group=self.group)
        return found if self.group == "union" else replace(found, group="none")

    def joined(self, call: Call, wanted: Tensor) -> Tensor:
        """One row of weights for each KV head."""
        if self.group not in ("sum", "max"):
            return wanted
        if call.valid is not None:  # padding takes no share
            wanted = wanted.masked_fill(~call.valid[:, None, None, : wanted.shape[-1]], _OUT)
        least = torch.finfo(torch.float32).min
        shares = wanted.log_softmax(-1).nan_to_num(nan=least, neginf=least).unflatten(1, (call.num_kv_heads, -1))
        joined: Tensor = shares.logsumexp(2) if self.group == "sum" else shares.amax(2)
        return joined
