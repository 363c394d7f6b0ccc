"""The share of the dense answer that lies behind the token where decoding leaves it, that token included.

Speculative decoding calls the rest the accepted length.
"""

from collections.abc import Sequence
from typing import Any

from sahub.measures import Measure
from sahub.measures._first_choices import changed


def _of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> float:
    return float(changed(dense, sparse).long().cummax(-1).values.double().mean())


MEASURE = Measure(fidelity="teacher", of_answer=_of_answer, ties="answer_kl")
