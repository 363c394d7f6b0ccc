"""What the numbers of a model are over, in which some layers are sparse."""

import pytest
from families import tiny

import sahub
from sahub.data.examples import Example, Question
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.model import wrap_model
from sahub.engine.outcome import joined
from sahub.engine.requests import prepare
from sahub.engine.session import Attention, Session

CONTEXTS = ("The quick brown fox jumps over the lazy dog. " * 3, "Pack my box with five dozen liquor jugs. " * 4)
QUESTIONS = tuple(
    Question(id=one, text=f" {one}?", answer_prefix="", references=("x",), max_new_tokens=4) for one in "ab"
)
LOCAL = sahub.build_stack([{"name": "sink", "sink_size": 8}, {"name": "local", "window_size": 24}])


def outcomes(family: str, tokenizer, attention: Attention):
    """The dense and the sparse outcome over two contexts with two questions each, a context at a time and joined."""
    session = Session(wrap_model(tiny(family), tokenizer))
    examples = [Example(id=context[:3], context=context, questions=QUESTIONS) for context in CONTEXTS]
    requests = prepare(session.model, examples, max_context_length=400, max_new_tokens=None, truncation="middle")
    plan = Plan(task="ruler/niah_single_1", fidelity="teacher")
    parts = [evaluate(session, [request], [Attention(), attention], plan) for request in requests]
    assert [outcome.reason for part in parts for outcome in part] == [""] * 4
    return joined([Attention(), attention], parts, 1e9)


@pytest.mark.parametrize(
    ("family", "sparse", "windows"),
    [("gemma2", [1, 3], [24, 24]), ("llama4", [1, 3], [32, 32]), ("qwen3_next", [3], [])],
)
def test_densities_are_over_sparse_layers_and_over_all_that_have_keys(family, sparse, windows, tokenizer) -> None:
    dense, found = outcomes(family, tokenizer, Attention(stack=LOCAL))
    for outcome in (dense, found):
        assert sorted({row["layer"] for row in outcome.micro}) == sparse
        assert (outcome.sparse_layers, outcome.num_layers) == (len(sparse), 4)
    measures = found.measures()
    tokens = sum(answer.n_context for answer in found.answers) / len(found.answers)
    assert 32 / (tokens + 20) < measures["density"] < 33 / (tokens - 20)
    shares = [measures["density"]] * len(sparse) + [window / tokens for window in windows]
    assert measures["density_all_layers"] == pytest.approx(sum(shares) / len(shares))
    assert dense.measures()["density"] == 1


def test_layers_that_are_kept_dense_count_as_one(tokenizer) -> None:
    _, found = outcomes("gemma2", tokenizer, Attention(stack=LOCAL, dense_layers=(1,)))
    measures = found.measures()
    tokens = sum(answer.n_context for answer in found.answers) / len(found.answers)
    assert found.sparse_layers == 1
    assert measures["density_all_layers"] == pytest.approx((measures["density"] + 1 + 2 * 24 / tokens) / 4)
