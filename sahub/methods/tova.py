"""TOVA: the last observer decides, with all heads together, which keys of the prefix are kept."""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.index.observation_window import Observing
from sahub.index.observed import Observed, shares_of

_LEAST = torch.finfo(torch.float32).tiny


@dataclass(frozen=True, kw_only=True)
class TOVA(Observing):
    """Attend to the keys of the prefix to which the last observer gave the most attention, all heads together.

    score(i, j) = mean over query heads of softmax_j(q_r.k_j * scale),  r = the last observer before row i

    Source   Oren et al. 2024, arXiv:2401.06104, sec. 3
    Differs  decided once: there, one more key is dropped in every step, so that the set depends on the budget in all
             earlier steps; the observers are rows of the question, each of which decides for the next one, the first
             for itself too; the last one's word stands, and nothing is evicted (see Observing)
    Memory   query heads per KV head * 16 * window_size * d / K bits per key and KV head, the observers' queries
    """

    # not searched: a window that is longer than the question lets rows of the answer decide for the next ones
    window_size: int = field(default=32, metadata={"unit": "rows"})

    def wanted(self, call: Call, observed: Observed) -> Tensor:
        """Log of the mean attention of all heads."""
        del call
        said = observed.latest("shares", shares_of(observed.logits)[..., : observed.start])
        shares = observed.served(said, lambda own: shares_of(own)[..., : observed.start], by_earlier=True)
        mean = shares.mean(dim=1, keepdim=True, dtype=torch.float64).float()
        return mean.clamp(min=_LEAST).log()
