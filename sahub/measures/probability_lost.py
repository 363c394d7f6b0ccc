"""What the dense answer's tokens lack of certainty under the stack: mean over tokens of 1 - p(token)."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure


def _of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    import torch  # the names of measures are read where planning must be light

    chosen = torch.tensor(list(ids), device=sparse.device)[:, None]
    return float(1.0 - sparse.softmax(-1).gather(-1, chosen).double().mean())


MEASURE = Measure(fidelity="teacher", of_answer=_of_answer)
