"""How unlikely the dense answer is under the stack."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure


def answer_nll(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    """Mean negative log-likelihood of the ids [n] under the sparse logits fp32 [n, vocabulary], in nats."""
    import torch  # the names of measures are read where planning must be light

    return float(torch.nn.functional.cross_entropy(sparse, torch.tensor(list(ids), device=sparse.device)))


MEASURE = Measure(fidelity="teacher", of_answer=answer_nll, log_axis=True)
