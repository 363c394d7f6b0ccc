"""Measures of forced answers against references written token by token."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from sahub.measures import MEASURES, of_answer

logits = st.tuples(st.integers(1, 6), st.integers(2, 9), st.integers(0, 2**31)).map(
    lambda shape: 3 * torch.randn(2, *shape[:2], generator=torch.Generator().manual_seed(shape[2]))
)


def first(row: Tensor) -> int:
    return max(range(len(row)), key=lambda at: float(row[at]))


def probability(row: Tensor, at: int) -> float:
    return math.exp(float(row[at])) / sum(math.exp(float(one)) for one in row)


@given(logits)
@settings(derandomize=True, max_examples=60, deadline=None)
def test_every_measure_of_an_answer_equals_its_slow_reference(both: Tensor) -> None:
    dense, sparse = both
    ids = [first(row) for row in dense]
    changed = [first(row) != one for row, one in zip(sparse, ids, strict=True)]
    ps = [probability(row, one) for row, one in zip(sparse, ids, strict=True)]
    kls = [
        sum(probability(p, at) * math.log(probability(p, at) / probability(q, at)) for at in range(len(p)))
        for p, q in zip(dense, sparse, strict=True)
    ]
    n = len(ids)
    assert of_answer(dense, sparse, ids) == pytest.approx(
        {
            "answer_changed": float(any(changed)),
            "answer_kl": sum(kls) / n,
            "answer_left": (n - changed.index(True)) / n if any(changed) else 0.0,
            "answer_nll": -sum(map(math.log, ps)) / n,
            "tokens_changed": sum(changed) / n,
        },
        abs=1e-5,
    )


@given(logits)
@settings(derandomize=True, max_examples=20, deadline=None)
def test_the_dense_answer_itself_loses_nothing(both: Tensor) -> None:
    dense = both[0]
    forbidden = [(first(row) + 1) % len(row) for row in dense]  # as where an answer may not begin with a stop token
    found = of_answer(dense, dense, forbidden)
    assert {name for name, number in found.items() if number} == {"answer_nll"}


def test_a_measure_of_answers_is_taken_by_forcing() -> None:
    assert {one.fidelity for one in MEASURES.values() if one.of_answer} == {"teacher"}
    for one in MEASURES.values():
        assert one.ties is None or MEASURES[one.ties].fidelity == one.fidelity
