"""The share of the dense answer's tokens that are no longer the first choice."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure


def _of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    return float((dense.argmax(-1) != sparse.argmax(-1)).double().mean())


MEASURE = Measure(fidelity="teacher", of_answer=_of_answer)
