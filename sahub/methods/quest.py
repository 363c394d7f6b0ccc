"""Quest: keep the pages of keys that could hold the largest dot product."""

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from sahub.attention.budgets import Density, Size
from sahub.attention.call import Call, Geometry
from sahub.attention.choose import choose
from sahub.attention.selection import Selection
from sahub.attention.selector import GROUPS, Selector
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError
from sahub.index.page_bounds import PageBounds


@dataclass(frozen=True, kw_only=True)
class Quest(Stage):
    """Attend to the pages of consecutive keys with the highest upper bound on q.k.

    bound(q, page) = sum_d max(q_d * low_d, q_d * high_d)

    Source   Tang et al. 2024, arXiv:2406.10774, sec. 3
    Differs  sink and window are stages of their own, and keys that they keep cost no budget; of the last page only the
             most recent keys are taken, so that the budget is filled and not exceeded; a closed page's bounds may be
             stored in label_bits, rounded outwards, so that they stay bounds; pages start at the first valid key; as
             many keys as min_pages hold are taken whatever the budget (3 is the authors' script); heads that share a
             KV head may choose together (group, see Selector), as a page loaded for one is loaded for all
    Memory   (2 * d * label_bits + [label_bits < 16] * 2 * 2 * 16) / page_size bits per key and KV head
    """

    batched = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    select: Mapping[str, Any] | None = field(default=None, metadata={"unit": "{top_p: share} | {threshold: logit}"})
    page_size: int = field(
        default=16, metadata={"unit": "tokens", "search": {"choices": [4, 8, 16, 32, 64, 128], "in_budget": 4}}
    )
    label_bits: int = field(default=16, metadata={"unit": "bits a channel", "search": {"choices": [2, 4, 8, 16]}})
    group: str = field(default="none", metadata={"unit": " | ".join(GROUPS)})
    min_pages: int = field(default=0, metadata={"unit": "pages"})

    def __post_init__(self) -> None:
        for name, low, unit in (("page_size", 1, "token"), ("min_pages", 0, "pages"), ("label_bits", 1, "bit")):
            value = getattr(self, name)
            if not isinstance(value, int) or isinstance(value, bool) or value < low:
                raise ConfigError(f"{name}={value}: must be at least {low} {unit}")
        if self.label_bits > 16:
            raise ConfigError(f"label_bits={self.label_bits}: must be 1 to 16 bits a channel, 16 = not quantised")
        self.selector  # noqa: B018  (checks the budget fields)

    @cached_property
    def selector(self) -> Selector:
        """What `density`, `heavy_size` or `select` asks for."""
        ways = {
            "density": self.density,
            "heavy_size": self.heavy_size,
            "min_units": self.min_pages,
            "group": self.group,
        }
        return Selector.of(self.select, **ways)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The pages of the highest bounds."""
        assert isinstance(index, PageBounds)
        return choose(call, taken, index.scores(call), self.selector)

    def index_key(self) -> Hashable:
        """The bounds depend on the page and the label alone."""
        return "quest", self.page_size, self.label_bits

    def new_index(self, *, layer: int, seed: int, example: int) -> "PageBounds":
        """No pages yet."""
        del layer, seed, example
        return PageBounds(self.page_size, self.label_bits)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """Two vectors a page, each with a 16-bit scale and offset when it is quantised."""
        del num_keys
        side = 2 * 2 * 16 if self.label_bits < 16 else 0
        return (2 * geometry.head_dim * self.label_bits + side) / self.page_size

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all
