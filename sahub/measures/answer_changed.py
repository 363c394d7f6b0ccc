"""The share of answers of which any token is no longer the first choice: decoding leaves the dense answer."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure
from sahub.measures._first_choices import changed


def _of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    return float(changed(dense, sparse).any())


MEASURE = Measure(fidelity="teacher", of_answer=_of_answer, ties="answer_kl")
