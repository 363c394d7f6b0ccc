"""Where a gold answer stands, and the attention to it that a stack loses."""

import weakref

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from sahub import build_stack, load_model
from sahub.engine import gold
from sahub.engine.record import record_each
from sahub.engine.session import Attention, Session
from sahub.fidelities import Asked

NAMES = ("orange", "violet", "silver")
LINES = "".join(f"The special magic number for {name} is: {7000 + at}.\n" for at, name in enumerate(NAMES * 12))
CONTEXT = LINES.replace("7015", "9321")
QUESTION = "What is the special magic number?"
PREFIX = "The special magic number for orange is: 93"


@pytest.fixture(scope="module")
def session() -> Session:
    torch.set_num_threads(1)
    return load_model()


@pytest.fixture(scope="module")
def asked(session: Session) -> Asked:
    ids = tuple(session.model.context_ids(CONTEXT))
    question = session.model.question_ids(QUESTION, PREFIX)
    prefix = session.prefix(ids, 64)
    dense = session.dense_answer(prefix, ids, tuple(question), max_new_tokens=6)
    stack = build_stack({"sink": {"sink_size": 4}, "local": {"window_size": 16}})
    return Asked(prefix=prefix, question=question, dense=dense, attention=Attention(stack=stack), ends={})


def told(session: Session, asked: Asked, stages: dict) -> dict:
    own = Asked(**{**vars(asked), "attention": Attention(stack=build_stack(stages))})
    found = gold.dropped(session, own, asked.prefix.context_ids, ("9321",))
    assert found is not None
    return found


def test_the_tokens_of_a_span_are_those_of_the_answer(session: Session, asked: Asked) -> None:
    [(first, end)] = told(session, asked, {"sink": {"sink_size": 4}})["spans"]
    ids = list(asked.prefix.context_ids)
    assert "9321" in session.model.tokenizer.decode(ids[first:end])
    assert "9321" not in session.model.tokenizer.decode(ids[first + 1 : end])
    assert "9321" not in session.model.tokenizer.decode(ids[first : end - 1])


def test_the_weight_is_that_of_the_models_own_softmax(session: Session, asked: Asked) -> None:
    from transformers import AutoModelForCausalLM

    found = told(session, asked, {"sink": {"sink_size": 4}})
    own = AutoModelForCausalLM.from_pretrained(
        session.model.hf.config._name_or_path, attn_implementation="eager", dtype=torch.float32
    )
    ids = [*asked.prefix.context_ids, *asked.question, *asked.dense.ids[:-1]]
    with torch.inference_mode():
        every = own(torch.tensor([ids]), output_attentions=True).attentions
    rows = slice(len(ids) - len(asked.dense.ids), None)  # those that give the tokens of the answer
    [(first, end)] = found["spans"]
    for layer, of_heads in zip(found["layers"], found["weight"], strict=True):
        expected = every[layer][0, :, rows, first:end].sum(-1).amax(-1)
        assert of_heads == pytest.approx(expected.tolist(), abs=2e-4)
    assert max(map(max, found["weight"])) > 0.5  # this model really looks there


def test_what_is_kept_is_not_lost_and_what_is_dropped_is_all(session: Session, asked: Asked) -> None:
    outside = told(session, asked, {"sink": {"sink_size": 4}, "local": {"window_size": 16}})
    assert outside["lost"] == outside["weight"]
    for stages in ({"dense": {}}, {"sink": {"sink_size": len(asked.prefix.context_ids)}}):
        assert all(lost == 0 for row in told(session, asked, stages)["lost"] for lost in row)
    best = told(session, asked, {"oracle_top_k": {"density": 0.05}})
    sharp = [
        (lost, weight)
        for losts, weights in zip(best["lost"], best["weight"], strict=True)
        for lost, weight in zip(losts, weights, strict=True)
        if weight > 0.5
    ]
    assert sharp
    assert all(lost < 0.1 for lost, _ in sharp)


def test_layer_by_layer_is_what_a_trace_of_all_tells_and_holds_nothing(session: Session, asked: Asked) -> None:
    stages = {"sink": {"sink_size": 4}, "quest": {"density": 0.1}}
    trace = session.record(asked.prefix, asked.question, asked.dense.ids)
    apart = told(session, asked, stages)
    [(first, end)] = apart.pop("spans")
    protocol = {"seed": 0, "dense_layers": (), "dense_question": False}
    assert gold.lost_weight(trace, build_stack(stages), range(first, end), **protocol) == apart
    held: list[weakref.ref] = []
    given = session.model, asked.prefix, asked.question, asked.dense.ids
    record_each(*given, lambda one: held.append(weakref.ref(one)))
    assert len(held) == session.model.geometry.num_layers
    assert not any(one() for one in held)


@pytest.mark.parametrize("group", ["max", "sum", "union"])
@pytest.mark.parametrize("method", ["quest", "pqcache", "snapkv"])
def test_heads_that_choose_together_lose_together(session: Session, asked: Asked, method: str, group: str) -> None:
    found = told(session, asked, {"sink": {"sink_size": 4}, method: {"density": 0.03, "group": group}})
    assert [len(heads) for heads in found["lost"]] == [session.model.geometry.num_heads] * len(found["layers"])
    lost, weight = (torch.tensor(found[name]) for name in ("lost", "weight"))
    assert bool((lost <= weight).all())
    assert bool((lost > 0).any())


def test_an_answer_of_one_token_after_a_dense_question_has_nothing_to_lose(session: Session, asked: Asked) -> None:
    ids = asked.prefix.context_ids
    dense = session.dense_answer(asked.prefix, ids, tuple(asked.question), max_new_tokens=1)
    attention = Attention(stack=build_stack({"sink": {"sink_size": 4}}), dense_question=True)
    own = Asked(**{**vars(asked), "dense": dense, "attention": attention})
    assert gold.dropped(session, own, ids, ("9321",))["layers"] == []
    assert session.replay(asked.prefix, asked.question, dense.ids, attention).tallies == {}


def test_layers_that_stay_dense_are_not_told(session: Session, asked: Asked) -> None:
    attention = Attention(stack=asked.attention.stack, dense_layers=(0, 2))
    found = gold.dropped(session, Asked(**{**vars(asked), "attention": attention}), asked.prefix.context_ids, ("9321",))
    assert found is not None
    assert found["layers"] == [1, 3]


def test_no_place_and_no_answer_tell_nothing(session: Session, asked: Asked) -> None:
    ids = asked.prefix.context_ids
    assert gold.dropped(session, asked, ids, ("12345678",)) is None
    assert gold.dropped(session, asked, ids, ("", "magic")) is None  # stands everywhere


@given(st.lists(st.sampled_from(["a", "Ab", "九", "x.y", " "]), max_size=20), st.sampled_from(["a", "Ab", "九", "x.y"]))
def test_places_are_the_whole_words(parts: list[str], wanted: str) -> None:
    text = "".join(parts)
    found = gold.places(text, [wanted])
    assert len(found) <= gold.MOST_PLACES
    for first, end in found:
        assert text[first:end] == wanted
        around = text[max(0, first - 1) : first] + text[end : end + 1]
        assert not any(char.isascii() and char.isalnum() for char in around)
