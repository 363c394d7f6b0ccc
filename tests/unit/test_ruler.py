"""Generated needles: fitted to a length, answerable in one way, repeatable."""

import re

import pytest

from sahub.errors import ConfigError, DataError
from sahub.examples import TaskSpec, load_examples, split_of

WORDS = re.compile(r"\w+|[^\w\s]|\n")


def count_tokens(text: str) -> int:
    """A tokenizer of words, signs and line ends."""
    return len(WORDS.findall(text))


def spec(subset: str, **options) -> TaskSpec:
    return TaskSpec(
        benchmark="ruler",
        subset=subset,
        metric="string_match_all",
        max_new_tokens=128,
        options={"num_examples": 3, **options},
    )


def draw(subset: str, length: int, *, split: str = "validate", limit: int | None = 3, seed: int = 0, **options):
    return load_examples(
        spec(subset, **options), split=split, limit=limit, length=length, count_tokens=count_tokens, seed=seed
    )


@pytest.mark.parametrize("subset", ["niah_single_1", "niah_multikey_2"])
@pytest.mark.parametrize("length", [512, 1024, 4096])
def test_prompts_fit_and_fill_their_length(subset, length):
    for example in draw(subset, length):
        [question] = example.questions
        prompt = f"{example.context}{question.text}\n{question.answer_prefix}"
        used = count_tokens(prompt) + question.max_new_tokens
        assert used <= length
        assert used >= length - max(0.03 * length, 26)  # one line of filler


@pytest.mark.parametrize("subset", ["niah_single_1", "niah_multikey_2"])
def test_there_is_one_answer(subset):
    for example in draw(subset, 1024):
        [question] = example.questions
        [gold] = question.references
        assert re.fullmatch(r"\d{7}", gold)
        assert example.context.count(gold) == 1
        name = re.search(r"number for ([\w-]+) in", question.text).group(1)
        assert example.context.count(f" {name} ") == 1
        assert f"{name} is: {gold}." in example.context


def test_needles_lie_at_all_depths():
    places = []
    for example in draw("niah_single_1", 1024, limit=24):
        lines = example.context.splitlines()
        [place] = [i for i, line in enumerate(lines) if example.questions[0].references[0] in line]
        places.append(place / len(lines))
    assert min(places) < 0.2
    assert max(places) > 0.8


def test_seeds_repeat_and_differ():
    assert draw("niah_multikey_2", 600) == draw("niah_multikey_2", 600)
    assert {e.id for e in draw("niah_multikey_2", 600)}.isdisjoint(e.id for e in draw("niah_multikey_2", 600, seed=1))
    assert draw("niah_multikey_2", 600, limit=5)[:3] == draw("niah_multikey_2", 600)


def test_splits_share_no_context():
    search, validate = (draw("niah_multikey_2", 400, split=split, limit=6) for split in ("search", "validate"))
    assert {split_of(example.context) for example in search} == {"search"}
    assert {split_of(example.context) for example in validate} == {"validate"}


def test_several_questions_about_one_context():
    [example, *_] = draw("niah_multikey_2", 1024, questions=4)
    assert len({question.text for question in example.questions}) == 4
    assert all(question.references[0] in example.context for question in example.questions)
    with pytest.raises(ConfigError, match=r"task\.options\.questions=4: niah_single_1 hides one needle"):
        draw("niah_single_1", 1024, questions=4)


@pytest.mark.parametrize("subset", ["niah_single_1", "niah_multikey_2"])
def test_a_length_that_cannot_be_met_is_an_error(subset):
    with pytest.raises(DataError, match="180 tokens cannot hold the instruction"):
        draw(subset, 180)


def test_without_a_limit_the_task_says_how_many():
    assert len(draw("niah_single_1", 400, limit=None)) == 3
