"""Random sampling: keep keys by chance alone, and weigh them so that sums come out right on average."""

from dataclasses import dataclass, field
from typing import ClassVar

from sahub.attention.budgets import Density, at_layer, check_density, is_number, row_share, share_of
from sahub.attention.call import Call, Picks
from sahub.attention.choose import free_keys
from sahub.attention.gather import by_rows
from sahub.attention.noise import noise
from sahub.attention.selection import Selection
from sahub.attention.selectors import sample
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class RandomSampling(Stage):
    """Attend to b keys drawn without replacement from the n that are not kept yet, each with weight n / b.

    sampling_rate  b = floor(sampling_rate * n), at least 1
    density        b = what is missing to density * N(i) keys in total

    Differs  without replacement, so that the weights are exact and the sums of the softmax unbiased; b = n is dense
    Memory   0 bits per key and KV head
    """

    samples: ClassVar[bool] = True
    batched = True

    sampling_rate: float | None = field(
        default=None,
        metadata={"unit": "share of the keys not kept yet", "search": {"low": 0.005, "high": 0.5, "log": True}},
    )
    density: Density | None = field(default=None, metadata={"unit": "share of the valid keys, once this stage is done"})

    def __post_init__(self) -> None:
        if (self.sampling_rate is None) == (self.density is None):
            raise ConfigError(f"sampling_rate={self.sampling_rate}, density={self.density}: exactly one must be set")
        if self.density is not None:
            check_density("density", self.density)
        elif not is_number(self.sampling_rate) or not 0 < self.sampling_rate <= 1:
            raise ConfigError(f"sampling_rate={self.sampling_rate}: must be a share of the keys in (0, 1]")

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """Keys by chance, for every query head its own."""
        del index
        if self.keeps_all:
            return taken.all()
        return by_rows(call, taken, call.rows.batch * call.num_heads * call.rows.num_keys, self._pick)

    def _pick(self, call: Call, taken: Selection) -> Picks:
        free = free_keys(call, taken)
        density = at_layer(self.density, call.layer)
        if density is None:
            share = float(self.sampling_rate or 0)
            num = (free.sum(-1).double() * share + 1e-6).floor().long().clamp(min=1)
            return sample(free, num, noise(call), share_of(share, call.rows.num_keys))
        num = (row_share(density, call.rows)[:, None] - taken.counts()).clamp(min=0)
        return sample(free, num.expand(free.shape[:3]), noise(call), share_of(density, call.rows.num_keys))

    @property
    def keeps_all(self) -> bool:
        """Only at the share 1."""
        shares = self.density if isinstance(self.density, (list, tuple)) else [self.density]
        return self.sampling_rate == 1 or all(share == 1 for share in shares)
