"""Oracle top-k: keep the keys with the largest true logits."""

from dataclasses import dataclass, field
from functools import cached_property

from sahub.attention.budgets import Density, Size
from sahub.attention.call import Call, Geometry
from sahub.attention.choose import choose, exact_scores
from sahub.attention.selection import Selection
from sahub.attention.selector import Selector
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class OracleTopK(Stage):
    """Attend to the keys of the largest q.k, per query head; an upper-bound reference, never a speed-up.

    rank=score           order by q.k
    rank=value_weighted  order by exp(q.k * scale) * |v|, closer to the least output error

    Differs  a fixed order among equal scores (the more recent key first); kept and forbidden keys are never chosen
    Memory   16 * d bits per key and KV head (it reads every key)
    """

    batched = True

    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})
    heavy_size: Size | None = field(
        default=None, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.2, "log": True}}
    )
    rank: str = field(default="score", metadata={"search": {"choices": ["score", "value_weighted"]}})

    def __post_init__(self) -> None:
        if self.rank not in ("score", "value_weighted"):
            raise ConfigError(f"rank={self.rank}: must be score or value_weighted")
        self.selector  # noqa: B018  (checks the budget fields)

    @cached_property
    def selector(self) -> Selector:
        """What `density` or `heavy_size` asks for."""
        return Selector.of(density=self.density, heavy_size=self.heavy_size)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The best keys by their true logits."""
        del index
        return choose(call, taken, exact_scores(call, value_weighted=self.rank == "value_weighted"), self.selector)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """Every key in 16 bits."""
        del num_keys
        return 16.0 * geometry.head_dim

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Only at density 1."""
        return self.selector.keeps_all
