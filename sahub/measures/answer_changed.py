"""The share of answers of which any token is no longer the first choice: decoding would leave the dense answer."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure


def _of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    return float((dense.argmax(-1) != sparse.argmax(-1)).any())


MEASURE = Measure(fidelity="teacher", of_answer=_of_answer)
