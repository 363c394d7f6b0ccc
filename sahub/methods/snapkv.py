"""SnapKV: keep the keys of the prefix that the first rows after it attend to, and let that set stand."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sahub.attention.budgets import is_count
from sahub.attention.call import Call
from sahub.errors import ConfigError
from sahub.index.observation_window import ObservingByHead
from sahub.index.observed import Observed, shares_of

POOLINGS = ("avg", "max")
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class SnapKV(ObservingByHead):
    """Attend to the keys of the prefix to which its observers, the first rows after it, gave the most attention.

    score(i, j) = pool over keys near j of (mean over observers r <= i of softmax_j(q_r.k_j * scale)), per query head.

    Source   Li et al. 2024, arXiv:2404.14469
    Differs  the observers are rows of the question, and nothing is evicted (see Observing)
    Memory   query heads per KV head * 16 * window_size * d / K bits per key and KV head, the observers' queries
    """

    kernel_size: int = field(default=5, metadata={"unit": "keys", "search": {"choices": [1, 3, 5, 7, 13]}})
    pooling: str = field(default="avg", metadata={"search": {"choices": list(POOLINGS)}})

    def __post_init__(self) -> None:
        super().__post_init__()
        if not is_count(self.kernel_size) or self.kernel_size % 2 == 0:
            raise ConfigError(f"kernel_size={self.kernel_size}: must be an odd number of keys")
        if self.pooling not in POOLINGS:
            raise ConfigError(f"pooling={self.pooling}: must be {' or '.join(POOLINGS)}")

    def wanted(self, call: Call, observed: Observed) -> Tensor:
        """Log of the pooled mean attention."""
        known = shares_of(observed.logits)[..., : observed.start]
        known = observed.summed("shares", known if call.valid is None else known * observed.counted[:, None, :, None])
        known = observed.served(known.div_(observed.numbers), lambda own: shares_of(own)[..., : observed.start])
        return (self._pooled(known) if observed.start else known).clamp_(min=_LEAST).log_()

    def _pooled(self, known: Tensor) -> Tensor:
        half = self.kernel_size // 2
        if self.pooling == "max":
            flat = torch.nn.functional.max_pool1d(known.flatten(0, 2), self.kernel_size, stride=1, padding=half)
            return flat.view(known.shape)
        padded = torch.nn.functional.pad(known, (half, half))
        total = known.zero_()  # as torch's avg_pool1d adds, which is slow on long rows
        for first in range(self.kernel_size):
            total += padded[..., first : first + known.shape[-1]]
        return total.div_(self.kernel_size)
