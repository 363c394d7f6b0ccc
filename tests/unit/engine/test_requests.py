"""Prompts as token ids: templates, one first token, context and question apart, cuts that keep what they promise."""

import pytest

from sahub.data.division import first_questions
from sahub.data.examples import Example, Question, example_id
from sahub.engine.model import wrap_model
from sahub.engine.requests import cut, prepare
from sahub.errors import DataError


@pytest.fixture(scope="module")
def plain(make_model, tokenizer):
    return wrap_model(make_model(), tokenizer, name="plain")


def example(context: str, questions: int = 1, max_new_tokens: int = 8) -> Example:
    asked = tuple(
        Question(
            id=str(i), text=f"\nWhy {i}?", answer_prefix="Because", references=("x",), max_new_tokens=max_new_tokens
        )
        for i in range(questions)
    )
    return Example(id=example_id(context), context=context, questions=asked)


def test_without_a_template_there_is_one_first_token_and_a_newline(plain):
    ids = plain.context_ids("Some text.") + plain.question_ids(" Why?", "Because")
    assert plain.tokenizer.decode(ids) == "<|bos|>Some text. Why?\nBecause"
    assert ids.count(plain.tokenizer.bos_token_id) == 1


def test_a_template_is_split_where_the_context_ends(chat):
    turn = [{"role": "user", "content": "Some text. Why?"}]
    whole = chat.tokenizer.apply_chat_template(turn, tokenize=False, add_generation_prompt=True) + "Because"
    ids = chat.context_ids("Some text.") + chat.question_ids(" Why?", "Because")
    assert chat.tokenizer.decode(ids) == whole == "<|bos|>[user] Some text. Why? [end][assistant] Because"
    assert ids.count(chat.tokenizer.bos_token_id) == 1


def test_overhead_is_what_the_prompt_has_beyond_its_texts(plain, chat):
    for model in (plain, chat):
        ids = model.context_ids("Some text.") + model.question_ids(" Why?", "Because")
        texts = model.count_tokens("Some text.") + model.count_tokens(" Why?\nBecause")
        assert len(ids) <= texts + model.overhead_tokens


def test_cuts():
    ids = list(range(10))
    assert cut(ids, 10, "middle") == ids
    assert cut(ids, 4, "head") == [0, 1, 2, 3]
    assert cut(ids, 4, "middle") == [0, 1, 8, 9]
    assert cut(ids, 5, "middle") == [0, 1, 2, 8, 9]
    assert cut(ids, 1, "middle") == [0]


@pytest.mark.parametrize("truncation", ["middle", "head"])
def test_a_long_context_leaves_room_for_question_and_answer(plain, truncation, caplog):
    requests = prepare(
        plain, [example("word " * 100)], max_context_length=100, max_new_tokens=None, truncation=truncation
    )
    [request] = requests
    assert len(request.context_ids) + len(request.question_ids[0]) + 8 == 100
    assert request.cut_tokens == 501 - len(request.context_ids)
    assert "cut=1" in caplog.text


def test_an_answer_is_never_longer_than_the_task_says(plain):
    [short] = prepare(plain, [example("text")], max_context_length=100, max_new_tokens=3, truncation="middle")
    [long] = prepare(plain, [example("text")], max_context_length=100, max_new_tokens=50, truncation="middle")
    assert long.room(50) - short.room(3) == 8 - 3


def test_no_room_at_all_is_an_error(plain):
    with pytest.raises(DataError, match="question and answer alone fill max_context_length=12 tokens"):
        prepare(plain, [example("text")], max_context_length=12, max_new_tokens=None, truncation="middle")


def test_questions_are_counted_across_contexts():
    some = [example("a", questions=3), example("b", questions=3)]
    assert [len(one.questions) for one in first_questions(some, 4)] == [3, 1]
    assert [len(one.questions) for one in first_questions(some, 3)] == [3]
    assert first_questions(some, None) == some
