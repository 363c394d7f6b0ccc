"""RULER as its own scripts write it: whole prompts, taken apart into context, question and start of answer."""

import json
from pathlib import Path
from typing import Any

import pytest
from task_rows import everything, load, spec

from sahub.errors import DataError, MissingFiles

NEEDLE = (
    "A special magic number is hidden within the following text. Make sure to memorize it. I will quiz you about the "
    "number afterwards.\nNoise {n}.\nOne of the special magic numbers for calm-river is: {n}.\nNoise.\n"
)
ASKED = "What is the special magic number for calm-river mentioned in the provided text?"
PREFIX = " The special magic number for calm-river mentioned in the provided text is"


def rows(prefix: str | None, count: int = 24) -> list[dict[str, Any]]:
    """Rows with the start of the answer in a column of its own, or (None) at the end of the prompt."""
    return [
        {
            "index": n,
            "input": NEEDLE.format(n=n) + ASKED + ("" if prefix is not None else PREFIX),
            "outputs": [str(n)],
            "length": 300,
            "length_w_model_temp": 320,
            **({} if prefix is None else {"answer_prefix": prefix}),
            "token_position_answer": 40,
        }
        for n in range(count)
    ]


def written(file: Path, held: list[dict[str, Any]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text("".join(json.dumps(row) + "\n" for row in held), encoding="utf-8")
    return file


@pytest.mark.parametrize("prefix", [PREFIX, None])
def test_a_whole_prompt_is_taken_apart_and_loses_nothing(prefix, tmp_path):
    file = written(tmp_path / "niah_single_1" / "validation.jsonl", rows(prefix))
    found = everything(spec("ruler/niah_single_1", path=str(file)))
    assert len(found) == 24
    for example in found:
        [question] = example.questions
        number = int(question.references[0])
        assert question.text == f"\n{ASKED}"
        assert question.answer_prefix == PREFIX
        assert example.context + question.text == NEEDLE.format(n=number) + ASKED


@pytest.mark.parametrize(
    "place",
    [
        "niah_single_1/validation.jsonl",
        "niah_single_1/test.jsonl",
        "data/niah_single_1/validation.jsonl",
        "4096/data/niah_single_1/validation.jsonl",
    ],
)
def test_the_folders_of_their_scripts_are_read(place, tmp_path):
    written(tmp_path / place, rows(PREFIX))
    written(tmp_path / place.replace("niah_single_1", "vt"), rows(PREFIX, 3))
    task = spec("ruler/niah_single_1", path=str(tmp_path), length=4096)
    assert len(everything(task)) == 24
    alone = spec("ruler/niah_single_1", path=str((tmp_path / place).parent))
    assert len(everything(alone)) == 24
    with pytest.raises(MissingFiles, match=r"task\.path="):
        load(spec("ruler/cwe", path=str(tmp_path)))


LAST_LINES = [
    ("Question: Find all variables that are assigned the value 5 in the text above.", " Answer: According to the ch"),
    ("Question: What are the 10 most common words in the above list?", " Answer: The top 10 words that are:"),
    ("What are all the special magic numbers for a, and b mentioned in the provided text?",
     " The special magic numbers for a, and b mentioned in the provided text are"),
    ("Question: who?", ""),
]  # fmt: skip


@pytest.mark.parametrize(("question", "prefix"), LAST_LINES)
def test_every_kind_of_last_line(question, prefix, tmp_path):
    held = [
        {"input": f"Text {n}.\nQuestion: an example?\n Answer: no\n\n{question}{prefix}", "outputs": ["x", "y"]}
        for n in range(20)
    ]
    file = written(tmp_path / "validation.jsonl", held)
    for example in everything(spec("ruler/vt", path=str(file))):
        [one] = example.questions
        assert (one.text, one.answer_prefix, one.references) == (f"\n{question}", prefix, ("x", "y"))


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ({"input": "no line break", "outputs": ["x"]}, "column input.*must be a text with a question in its last line"),
        ({"input": "a text\n", "outputs": ["x"]}, "column input"),
        ({"input": "\nWhy?", "outputs": ["x"]}, "column input"),
        ({"input": "a\nWhy?", "outputs": []}, "column outputs.*must hold an answer"),
        ({"input": "a\nWhy?", "answers": ["x"]}, "missing column"),
    ],
)
def test_rows_that_cannot_be_taken_apart_are_named(row, message, tmp_path):
    file = written(tmp_path / "validation.jsonl", [row])
    with pytest.raises(DataError, match=message) as caught:
        everything(spec("ruler/niah_single_1", path=str(file)))
    assert "validation.jsonl:1" in str(caught.value)


@pytest.mark.parametrize("name", ["validation.jsonl", "validation.json", "a.parquet", "a.zip"])
def test_a_pointer_in_place_of_data_is_named(name, tmp_path):
    file = tmp_path / name
    text = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 1234\n"
    file.write_text(text, encoding="utf-8")
    with pytest.raises(DataError, match=rf"{name}: a Git LFS pointer, .*git lfs pull, or hf download"):
        load(spec("ruler/niah_single_1", path=str(file)))
    with pytest.raises(DataError, match="Git LFS pointer"):
        load(spec("ruler/niah_single_2", options={"essay": str(file)}))
