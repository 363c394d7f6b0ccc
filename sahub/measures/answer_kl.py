"""How far the distributions of the answer's tokens are from the dense ones."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure


def answer_kl(dense: Any, sparse: Any, ids: Sequence[int] = ()) -> float:
    """Mean over answer tokens of KL(dense || sparse), in nats; logits fp32 [n, vocabulary] for the same tokens."""
    p, q = dense.log_softmax(-1), sparse.log_softmax(-1)
    # Rounding can leave -1e-10 for two equal distributions; no number stays no number.
    return float((p.exp() * (p - q)).sum(-1).mean().clamp(min=0.0))


MEASURE = Measure(fidelity="teacher", of_answer=answer_kl, log_axis=True)
