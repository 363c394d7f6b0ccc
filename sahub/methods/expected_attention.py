"""ExpectedAttention: keep the keys of the prefix that queries like the observers' can be expected to attend to."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.errors import ConfigError
from sahub.index.observation_window import ObservingByHead
from sahub.index.observed import Observed

RANKS = ("score", "value_weighted")
_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class ExpectedAttention(ObservingByHead):
    """Attend to the keys of the prefix with the largest expected weight, for normally distributed queries.

    score(i, j) = E exp(q.k_j * scale) = exp(mean + variance / 2) of the logits of k_j, over the observers r <= i, per
    query head; rank=value_weighted multiplies it by |v_j|

    Source   Devoto et al. 2025, arXiv:2510.00636
    Differs  mean and variance are those of the observers, which are rows of the question at their own positions: there,
             of the prefix's queries, turned to the mean of the next positions. Each query head has its own set; nothing
             is evicted (see Observing)
    Memory   query heads per KV head * 16 * window_size * d / K bits per key and KV head, the observers' queries
    """

    rank: str = field(default="value_weighted", metadata={"search": {"choices": list(RANKS)}})

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rank not in RANKS:
            raise ConfigError(f"rank={self.rank}: must be {' or '.join(RANKS)}")

    def wanted(self, call: Call, observed: Observed) -> Tensor:
        """Log of the expected weight, fp64 sums."""
        logits = observed.logits[..., : observed.start].double()
        if call.valid is not None:
            logits = logits.masked_fill(observed.counted[:, None, :, None] == 0, 0.0)
        mean = observed.summed("logits", logits).div_(observed.numbers)
        variance = observed.summed("squares", logits.square_()).div_(observed.numbers).sub_(mean.square()).clamp_(min=0)
        expected = observed.served(mean.add_(variance.div_(2)), lambda own: own[..., : observed.start].double())
        if self.rank == "value_weighted":
            group = call.num_heads // call.num_kv_heads
            norms = torch.linalg.vector_norm(call.v[:, :, : observed.start].float(), dim=-1).clamp(min=_LEAST)
            expected = expected + norms.log().repeat_interleave(group, dim=1)[:, :, None]
        return expected.float().nan_to_num(nan=torch.finfo(torch.float32).min)
