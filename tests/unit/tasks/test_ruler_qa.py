"""RULER's questions from SQuAD and HotpotQA files: fitted, answerable, of one split; what is missing is named."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path
from random import Random

import pytest
import yaml

from sahub.data import vocabulary
from sahub.data.examples import Example, TaskSpec, split_of
from sahub.data.loading import load_examples, missing
from sahub.errors import ConfigError, DataError, MissingFiles
from sahub.scores import score
from sahub.tasks.ruler.qa import INSTRUCTION

FOLDER = Path(__file__).parents[3] / "conf" / "task" / "ruler"
SUBSETS = ("qa_1", "qa_2")
FILES = {"qa_1": "dev-v2.0.json", "qa_2": "hotpot_dev_distractor_v1.json"}
DOCUMENT = re.compile(r"\n\nDocument (\d+):\n")


def prose(rng: Random, sentences: int) -> str:
    return " ".join(vocabulary.prose(rng) for _ in range(sentences))


def squad(articles: int = 26) -> dict:
    """Articles of six paragraphs, each with two questions that can be answered and one that cannot."""
    rng, data = Random(1), []
    for a in range(articles):
        paragraphs = []
        for p in range(6):
            code = f"code{a}x{p}"
            text = f"{prose(rng, 4)} In town {a}-{p} they say {code}. {prose(rng, rng.randint(1, 12))}"
            answers = [{"text": code, "answer_start": 0}, {"text": code, "answer_start": 0}]
            qas = [
                {"id": "1", "question": f"What do they say in town {a}-{p}?", "answers": answers},
                {"id": "2", "question": f"Where do they say {code}?", "is_impossible": False,
                 "answers": [{"text": f"town {a}-{p}", "answer_start": 0}, {"text": "In town", "answer_start": 0}]},
                {"id": "3", "question": "Who says nothing?", "answers": [], "is_impossible": True},
            ]  # fmt: skip
            paragraphs.append({"context": text, "qas": qas})
        data.append({"title": f"article {a}", "paragraphs": paragraphs})
    return {"version": "v2.0", "data": data}


def hotpot(questions: int = 120) -> list:
    """Ten documents per question, of which two support the answer."""
    rng, rows = Random(2), []
    for q in range(questions):
        titles = [f"Place {q}-{d}" for d in range(10)]
        context = [[title, [f"{title} is old.", f" {prose(rng, rng.randint(1, 8))}"]] for title in titles]
        answer = "yes" if q % 4 == 0 else f"harbor{q}"
        context[3][1].append(f" Its port is called harbor{q}.")
        facts = [[titles[3], 2], [titles[7], 0], ["A title that is not there", 0]]
        rows.append({
            "_id": str(q), "question": f"Has the port of place {q}-3 a name?", "answer": answer,
            "supporting_facts": facts, "context": context, "type": "bridge", "level": "hard",
        })  # fmt: skip
    return rows


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("questions")
    for subset, data in (("qa_1", squad()), ("qa_2", hotpot())):
        (found / FILES[subset]).write_text(json.dumps(data), encoding="utf-8")
    return found


@cache
def packaged():
    from sahub.training.tokenizer import build

    return build()


COUNTERS: dict[str, Callable[[str], int]] = {
    "packaged": lambda text: len(packaged().encode(text).ids),
    "words": lambda text: len(re.findall(r"\w+|[^\w\s]|\n", text)),
}


def spec(subset: str, file: Path | str | None, **options) -> TaskSpec:
    values = yaml.safe_load((FOLDER / f"{subset}.yaml").read_text(encoding="utf-8"))
    given = {**values["options"], "file": None if file is None else str(file), **options}
    return TaskSpec(**{**values, "options": given})


def draw(
    subset: str, folder: Path, length: int = 2000, *, limit: int | None = 8, split: str = "validate", seed: int = 0,
    counter: str = "words",
) -> list[Example]:  # fmt: skip
    return load_examples(
        spec(subset, folder / FILES[subset]),
        split=split, limit=limit, length=length, count_tokens=COUNTERS[counter], seed=seed,
    )  # fmt: skip


def documents(example: Example) -> list[str]:
    opening, *parts = DOCUMENT.split(example.context)
    assert opening == INSTRUCTION
    assert parts[0::2] == [str(number) for number in range(1, len(parts[1::2]) + 1)]
    return parts[1::2]


@pytest.mark.parametrize(("length", "limit"), [(2048, 8), (4096, 8), (16384, 1)])
@pytest.mark.parametrize("counter", sorted(COUNTERS))
@pytest.mark.parametrize("subset", SUBSETS)
def test_prompts_fill_their_length_and_never_exceed_it(
    subset: str, counter: str, length: int, limit: int, folder: Path
) -> None:
    count, fills = COUNTERS[counter], []
    for example in draw(subset, folder, length, limit=limit, counter=counter):
        [question] = example.questions
        tail = f"{question.text}\n{question.answer_prefix}"
        prompt = max(count(example.context) + count(tail), count(example.context + tail))
        fills.append((prompt + question.max_new_tokens) / length)
    assert len(fills) == limit
    assert max(fills) <= 1
    assert sum(fill >= 0.97 for fill in fills) >= 0.95 * limit - (length == 2048)  # a document may be 3 % of it


def test_a_length_beyond_all_documents_gets_all_of_them(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    [example] = draw("qa_1", folder, 10**6, limit=1)
    assert len(documents(example)) == 156
    assert "task=ruler/qa_1 contexts=1 hold all 156 documents, there are no more" in caplog.text


def test_a_document_holds_the_answer_and_its_article_comes_first(folder: Path) -> None:
    found = {text["context"]: a for a, article in enumerate(squad()["data"]) for text in article["paragraphs"]}
    for example in draw("qa_1", folder, limit=20):
        [question] = example.questions
        held = documents(example)
        assert len(set(held)) == len(held) > 3
        place = re.search(r"town \d+-\d+|code\d+x\d+", question.text).group()
        [own] = [text for text in held if place in text.replace("In town", "town")]
        assert question.references[0] in own
        assert score("ruler/qa_1", f"It is {question.references[-1]}", list(question.references)) == 1.0
        articles = [found[text] for text in held]
        others = len(held) - articles.count(found[own])
        assert articles.count(found[own]) == 6 or others <= 1  # one is there to fill what is left


def test_both_supporting_documents_are_there_and_then_the_others_of_the_question(folder: Path) -> None:
    answers = []
    for example in draw("qa_2", folder, length=1000, limit=20):
        [question] = example.questions
        number = re.search(r"place (\d+)-3", question.text).group(1)
        held = documents(example)
        titles = [text.partition("\n")[0] for text in held]
        assert {f"Place {number}-3", f"Place {number}-7"} <= set(titles)
        of_question = [title for title in titles if title.startswith(f"Place {number}-")]
        assert len(of_question) == 10 or len(titles) - len(of_question) <= 1
        [gold] = question.references
        assert gold == "yes" or gold in "".join(held)
        answers.append(gold)
    assert "yes" in answers
    assert len(set(answers)) > 10


@pytest.mark.parametrize("subset", SUBSETS)
def test_seeds_repeat_and_differ_and_no_question_is_in_both_splits(subset: str, folder: Path) -> None:
    examples = draw(subset, folder)
    assert examples == draw(subset, folder)
    assert draw(subset, folder, limit=3) == examples[:3]
    assert {e.id for e in examples}.isdisjoint(e.id for e in draw(subset, folder, seed=1))
    every = {split: draw(subset, folder, length=600, limit=None, split=split) for split in ("search", "validate")}
    asked = {split: [example.questions[0].text for example in found] for split, found in every.items()}
    assert set(asked["search"]).isdisjoint(asked["validate"])
    assert sum(map(len, asked.values())) == {"qa_1": 312, "qa_2": 120}[subset]
    assert all(split_of(example.context) == split for split, found in every.items() for example in found)
    assert "nothing" not in "".join(asked["validate"])


def test_documents_lie_in_random_order(folder: Path) -> None:
    places = []
    for example in draw("qa_1", folder, limit=30):
        held = documents(example)
        [gold] = [i for i, text in enumerate(held) if example.questions[0].references[0] in text][:1]
        places.append(gold / (len(held) - 1))
    assert min(places) < 0.2
    assert max(places) > 0.8


@pytest.mark.parametrize(
    ("subset", "url"), [("qa_1", "SQuAD-explorer/dataset/dev-v2.0"), ("qa_2", "hotpot/hotpot_dev")]
)
def test_a_missing_file_is_one_message_with_the_command(subset: str, url: str, tmp_path: Path) -> None:
    for given in (None, tmp_path / "absent.json"):
        told = missing(spec(subset, given))
        first, command, then = told.splitlines()
        assert first.startswith(f"task=ruler/{subset}: task.options.file={given or 'null'}: ")
        assert FILES[subset] in first
        assert command.startswith("  curl -LO http")
        assert url in command
        assert then == "  then run again, or add task.options.file=PATH"
        with pytest.raises(MissingFiles, match="curl -LO"):
            load_examples(spec(subset, given), split="search", limit=1, length=900, count_tokens=len)


@pytest.mark.parametrize("subset", SUBSETS)
def test_a_file_in_the_working_directory_is_found(subset: str, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert missing(spec(subset, None))
    monkeypatch.chdir(folder)
    assert missing(spec(subset, None)) is None
    found = load_examples(spec(subset, None), split="search", limit=2, length=900, count_tokens=COUNTERS["words"])
    assert found == draw(subset, folder, length=900, limit=2, split="search")


def test_a_file_of_another_layout_is_named(tmp_path: Path, folder: Path) -> None:
    cases = {
        "[": "not JSON: ",
        "[]": "not the layout of dev-v2.0.json",
        '{"data": 3}': "not the layout of dev-v2.0.json",
        '{"data": []}': "holds no question with an answer",
        '{"data": [{"title": "t"}]}': "no 'paragraphs'",
        '{"data": [{"paragraphs": [{"context": null, "qas": []}]}]}': "'None' stands where there must be a text",
    }
    for number, (text, why) in enumerate(cases.items()):
        file = tmp_path / f"{number}.json"
        file.write_text(text, encoding="utf-8")
        assert missing(spec("qa_1", file)) is None
        with pytest.raises(DataError, match=rf"^task\.options\.file=\S+{number}\.json: .*{re.escape(why)}"):
            load_examples(spec("qa_1", file), split="search", limit=1, length=900, count_tokens=len)
    (tmp_path / "latin.json").write_bytes(b'"caf\xe9"')
    with pytest.raises(DataError, match=r"not UTF-8 \(byte 4\)"):
        load_examples(spec("qa_1", tmp_path / "latin.json"), split="search", limit=1, length=900, count_tokens=len)
    with pytest.raises(DataError, match=r"not the layout of hotpot_dev_distractor_v1\.json"):
        load_examples(spec("qa_2", folder / FILES["qa_1"]), split="search", limit=1, length=900, count_tokens=len)


def test_wrong_options_and_lengths_are_named(folder: Path) -> None:
    file = folder / FILES["qa_1"]
    with pytest.raises(ConfigError, match=r"task\.options\.essay: qa_1 has no such option; it has num_examples, file"):
        missing(spec("qa_1", file, essay="x"))
    with pytest.raises(ConfigError, match=r"task\.options\.file=3: must be the path of dev-v2\.0\.json"):
        missing(replace(spec("qa_1", file), options={"file": 3}))
    with pytest.raises(DataError, match=r"qa_1: 60 tokens cannot hold the instruction, 1 document with the answer"):
        draw("qa_1", folder, 60)


def test_a_question_whose_documents_do_not_fit_is_passed_over(tmp_path: Path, folder: Path, caplog) -> None:
    data = json.loads((folder / FILES["qa_1"]).read_text())
    file = tmp_path / "dev-v2.0.json"
    long = 0
    for article in data["data"]:
        for paragraph in article["paragraphs"][::3]:  # one in three is too long for any prompt
            paragraph["context"] += " and so on" * 400
            long += 1
    file.write_text(json.dumps(data))
    found = load_examples(spec("qa_1", file), split="validate", limit=20, length=600, count_tokens=COUNTERS["words"])
    assert len(found) == 20
    assert not any("and so on and so on" in example.context for example in found)
    assert "cannot hold the instruction, 1 document with the answer" in caplog.text
    assert "such examples, others are taken" in caplog.text
    first = load_examples(spec("qa_1", file), split="validate", limit=5, length=600, count_tokens=COUNTERS["words"])
    assert first == found[:5]
