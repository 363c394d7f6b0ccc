"""The share of the dense answer's tokens that are no longer the first choice, each with the dense ones before it."""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure
from sahub.measures._first_choices import changed


def _of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    return float(changed(dense, sparse).double().mean())


MEASURE = Measure(fidelity="teacher", of_answer=_of_answer, ties="answer_kl")
