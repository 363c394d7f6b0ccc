"""Questions of a context that are answered together get the answers, and the numbers, that each gets alone."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Any

import pytest
import torch
from conftest import FAMILIES
from families import tiny
from hypothesis import given
from hypothesis import strategies as st

from sahub import build_stack
from sahub.attention.stack import Stack
from sahub.data.examples import Example, Question
from sahub.engine.evaluate import Plan, evaluate
from sahub.engine.forward import OutOfTime
from sahub.engine.model import Model, wrap_model
from sahub.engine.requests import Request
from sahub.engine.session import Attention, Session
from sahub.engine.together import batch
from sahub.engine.together.batch import MOST, SPREAD, batches
from sahub.errors import memory_trouble
from sahub.methods.sink import Sink

CONTEXT = tuple(int(x) for x in torch.randint(3, 259, (90,), generator=torch.Generator().manual_seed(1)))
QUESTIONS = [list(range(10 + at, 10 + at + size)) for at, size in enumerate((7, 12, 7, 9, 21))]
SINK, LOCAL = {"name": "sink", "sink_size": 2}, {"name": "local", "window_size": 8}
STACKS = {
    "quest": [SINK, LOCAL, {"name": "quest", "density": 0.3, "page_size": 4}],
    "snapkv": [SINK, LOCAL, {"name": "snapkv", "density": 0.3, "window_size": 4}],
    "adaptive_sampling": [SINK, LOCAL, {"name": "adaptive_sampling", "base_rate_sampling": 0.1, "epsilon": 0.3}],
    "streaming_llm": [SINK, LOCAL],
}
PROTOCOLS = {"all": {}, "setup A": {"dense_question": True}, "partly": {"dense_layers": (0,), "measure": 3}}


@pytest.fixture(scope="module")
def model(make_model, tokenizer) -> Model:
    return wrap_model(make_model(), tokenizer)


def stack_of(name: str) -> Stack:
    return build_stack(STACKS[name], density=0.3)


def summaries(run) -> dict[tuple[int, str], dict[str, float]]:
    return {place: tally.summary() for place, tally in run.hook.tallies.items()}


@pytest.mark.parametrize(
    ("name", "protocol"),
    [
        ("quest", "all"),
        ("quest", "partly"),
        ("snapkv", "setup A"),
        ("adaptive_sampling", "all"),
        ("streaming_llm", "all"),
    ],
)
def test_answers_and_tallies_are_those_of_each_alone(model: Model, name: str, protocol: str) -> None:
    session, attention = Session(model), Attention(stack=stack_of(name), **PROTOCOLS[protocol])
    prefix = session.prefix(CONTEXT, 8)  # less room than they need
    most = [4, 6, 1, 7, 3]
    alone = [
        session.generate(prefix, one, attention, max_new_tokens=num) for one, num in zip(QUESTIONS, most, strict=True)
    ]
    before = model.counters.generated_tokens
    for _ in range(2):  # what they leave behind does not reach the next ones
        many = session.generate_together(prefix, QUESTIONS, attention, most)
        assert [run.ids for run in many] == [run.ids for run in alone]
        for one, other in zip(alone, many, strict=True):
            expected, found = summaries(one), summaries(other)
            assert {*found} == {*expected}
            for place, numbers in expected.items():
                assert found[place] == pytest.approx(numbers, rel=1e-4, abs=1e-7)
    assert model.counters.generated_tokens - before == 2 * sum(len(run.ids) for run in alone)
    again = session.generate(prefix, QUESTIONS[0], attention, max_new_tokens=4)
    assert torch.equal(again.logits, alone[0].logits)


def test_stop_tokens_let_rows_leave(model: Model) -> None:
    attention = Attention(stack=stack_of("quest"))
    session = Session(model)
    prefix = session.prefix(CONTEXT, 64)
    free = [run.ids for run in session.generate_together(prefix, QUESTIONS, attention, [12] * 5)]
    stopping = replace(model, stop_ids=frozenset({free[1][2], free[3][5]}))
    session = Session(stopping)
    for ends in ({"line_stop": None}, {"line_stop": free[0][0]}):
        alone = [session.generate(prefix, one, attention, max_new_tokens=12, **ends).ids for one in QUESTIONS]
        found = [run.ids for run in session.generate_together(prefix, QUESTIONS, attention, [12] * 5, **ends)]
        assert found == alone
        assert len({len(one) for one in found}) > 1


def test_time_ends_for_all(model: Model) -> None:
    session, attention = Session(model), Attention(stack=stack_of("quest"))
    prefix = session.prefix(CONTEXT, 64)
    with pytest.raises(OutOfTime, match="after 1 of at most 9 tokens"):
        session.generate_together(prefix, QUESTIONS, attention, [4, 9, 4, 4, 4], deadline=0.0)


@given(lengths=st.lists(st.integers(1, 120), min_size=1, max_size=40))
def test_questions_of_about_one_length_are_a_batch(lengths: list[int]) -> None:
    found = batches([[0] * length for length in lengths])
    assert sorted(number for one in found for number in one) == [*range(len(lengths))]
    for one in found:
        sizes = [lengths[number] for number in one]
        assert len(one) <= MOST
        assert max(sizes) - min(sizes) <= SPREAD
    for one, other in pairwise(found):  # no more of them than it takes
        assert len(one) == MOST or lengths[other[0]] > lengths[one[0]] + SPREAD


@dataclass(frozen=True, kw_only=True)
class Own(Sink):
    """A stage that was written without a thought of batches."""

    batched = False


def test_stacks_that_cannot_be_a_batch_go_one_by_one(model: Model) -> None:
    session, alone = Session(model), [[number] for number in range(5)]
    prefix = session.prefix(CONTEXT, 64)
    assert session.batches(prefix, QUESTIONS, Attention(stack=stack_of("quest"))) == batches(QUESTIONS) != alone
    assert session.batches(prefix, QUESTIONS, Attention()) == alone
    assert session.batches(prefix, QUESTIONS, Attention(stack=Stack((Own(sink_size=4),)))) == alone


@pytest.mark.parametrize("family", [*FAMILIES, "gemma2", "gpt_oss", "qwen3_next", "falcon_h1"])
def test_models_are_asked_together_where_all_they_hold_is_keys(
    family: str, make_model: Callable[[str], Any], tokenizer: Any
) -> None:
    session = Session(wrap_model(make_model(family) if family in FAMILIES else tiny(family), tokenizer))
    attention = Attention(stack=stack_of("quest"))
    prefix = session.prefix(CONTEXT, 64)
    assert (len(session.batches(prefix, QUESTIONS, attention)) == 1) is (family in FAMILIES)
    if family in FAMILIES:
        alone = [session.generate(prefix, one, attention, max_new_tokens=4).ids for one in QUESTIONS]
        assert [run.ids for run in session.generate_together(prefix, QUESTIONS, attention, [4] * 5)] == alone


def request_of() -> Request:
    """Five questions that are asked about the context."""
    questions = tuple(
        Question(id=str(at), text="", answer_prefix="", references=("x",), max_new_tokens=2 + at) for at in range(5)
    )
    return Request(
        example=Example(id="e", context="", questions=questions),
        context_ids=CONTEXT,
        question_ids=tuple(map(tuple, QUESTIONS)),
        cut_tokens=0,
    )


@pytest.mark.parametrize("size", [2, 8])
def test_figures_do_not_depend_on_how_many_were_answered_at_once(
    model: Model, monkeypatch: pytest.MonkeyPatch, size: int
) -> None:
    request = request_of()
    attention, plan = Attention(stack=stack_of("quest")), Plan(task="ruler/niah_single_1", fidelity="generate")
    monkeypatch.setattr(batch, "MOST", 1)
    [alone] = evaluate(Session(model), [request], [attention], plan)
    monkeypatch.setattr(batch, "MOST", size)
    before = model.counters.prefills
    [many] = evaluate(Session(model), [request], [attention], plan)
    assert model.counters.prefills == before + 1
    assert many.state == alone.state == "complete"
    assert [replace(one, seconds=0.0) for one in many.answers] == [replace(one, seconds=0.0) for one in alone.answers]
    for row, expected in zip(many.micro, alone.micro, strict=True):
        names = {"example", "question", "phase"}
        assert {name: row[name] for name in names} == {name: expected[name] for name in names}
        assert dict(row, **dict.fromkeys(names, 0)) == pytest.approx(
            dict(expected, **dict.fromkeys(names, 0)), rel=1e-4, abs=1e-7
        )


OUT = (
    MemoryError(),
    RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried"),
    RuntimeError("DefaultCPUAllocator: not enough memory: you tried"),
    torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
)


def test_memory_that_is_out_is_known_by_what_is_said() -> None:
    assert all(memory_trouble(error) for error in OUT)
    assert not any(map(memory_trouble, (RuntimeError("shapes differ"), ValueError("out of memory"))))


def test_memory_that_is_out_is_tried_once_more_with_less(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    request, plan = request_of(), Plan(task="ruler/niah_single_1", fidelity="generate")
    [expected] = evaluate(Session(model), [request], [Attention(stack=stack_of("quest"))], plan)

    def fails(times: int) -> Session:
        left, whole = [OUT[-1]] * times, Session.generate_together

        def generate_together(self: Session, *given: Any, **ends: Any) -> Any:
            if left:
                raise left.pop()
            assert len(given[1]) == 1 or not times
            return whole(self, *given, **ends)

        monkeypatch.setattr(Session, "generate_together", generate_together)
        return Session(model)

    [outcome] = evaluate(fails(1), [request], [Attention(stack=stack_of("quest"))], plan)
    assert outcome.state == "complete"
    assert [one.answer for one in outcome.answers] == [one.answer for one in expected.answers]
    [outcome] = evaluate(fails(2), [request], [Attention(stack=stack_of("quest"))], plan)
    assert outcome.state == "failed"
    assert outcome.reason.startswith("out of memory, also with one question at a time")
    assert "fewer workers (compute.workers" in outcome.reason


def test_another_error_is_not_tried_again(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def generate_together(*given: Any, **ends: Any) -> None:
        asked.append(given)
        raise RuntimeError("shapes differ")

    monkeypatch.setattr(Session, "generate_together", generate_together)
    plan = Plan(task="ruler/niah_single_1", fidelity="generate")
    [outcome] = evaluate(Session(model), [request_of()], [Attention(stack=stack_of("quest"))], plan)
    assert (outcome.state, outcome.reason, len(asked)) == ("failed", "RuntimeError: shapes differ", 1)
