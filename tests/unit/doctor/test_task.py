"""What the doctor finds out about a task: data, labels, lengths, truncation, scores; and how it ends."""

import json
import shutil
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import pytest
from commands import read, sahub

from sahub.config.cell import Cell, compose_cell
from sahub.data.examples import TaskSpec, split_of
from sahub.doctor import dataset, examine, floors, lengths
from sahub.errors import MissingFiles
from sahub.models.weights import EMBEDDED
from sahub.scores import primary_metric

QUICK = ["compute.threads=1", "doctor.requests=2", "doctor.max_new_tokens=4"]
TASK = "task=loogle/shortdep_qa"
ABSENT = ["model=hf", "model.path=nobody/nothing"]


def doctor(directory: Path, *overrides: str) -> Cell:
    return compose_cell([*QUICK, *overrides], command="doctor", directory=directory)


def written(directory: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((directory / "doctor.json").read_text(encoding="utf-8"))
    return found


def texts(split: str, count: int, sentences: int = 12) -> list[str]:
    """Texts of a split, each with one answer near its beginning and one in its middle."""
    found: list[str] = []
    number = 0
    while len(found) < count:
        number += 1
        filler = ["Nothing else happened on that day."] * (sentences // 2)
        text = " ".join([f"The first name is early{number}.", *filler, f"The second is middle{number}.", *filler])
        if split_of(text) == split:
            found.append(text)
    return found


def row(context: str, answer: Any, question: str = "Which name?") -> dict[str, Any]:
    return {"context": context, "question": question, "answer_prefix": "", "answer": answer, "task": "shortdep_qa"}


def name_in(context: str, which: str) -> str:
    return next(word.strip(".") for word in context.split() if word.startswith(which))


def rows(sentences: int = 12, search: int = 3, validate: int = 4) -> list[dict[str, Any]]:
    contexts = [*texts("search", search, sentences), *texts("validate", validate, sentences)]
    asked = (("What is the first name?", "early"), ("And the second?", "middle"))
    return [row(text, name_in(text, which), question) for text in contexts for question, which in asked]


def data(folder: Path, held: Sequence[dict[str, Any]]) -> str:
    """The override that names a file with these rows."""
    file = folder / "shortdep_qa.jsonl"
    file.write_text("".join(f"{json.dumps(one)}\n" for one in held), encoding="utf-8")
    return f"task.path={file}"


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("good")
    held = [*rows(), row("An empty question.", "x", question=""), row("No answer.", "")]
    assert examine(doctor(folder, TASK, data(folder, held)))
    return written(folder)


@pytest.fixture(scope="module")
def count():
    from sahub.engine.model import load_model

    return load_model("embedded").count_tokens


def test_rows_contexts_and_labels_are_counted(good: dict[str, Any]) -> None:
    found = good["data"]
    assert (found["rows"], found["rows_without_label"]) == (16, 1)
    assert found["contexts"] == {"search": 3, "validate": 4}
    assert found["questions"] == {"search": 6, "validate": 8}
    assert (found["questions_without_label"], found["duplicates"], found["contradictions"]) == (0, 0, 0)
    assert good["usable"]
    assert good["verdict"].startswith(
        "can be used for: a search on 3 contexts with 6 questions; a validation on 4 contexts with 8 questions. not"
    )


def test_lengths_are_those_of_the_models_tokens(good: dict[str, Any], count) -> None:
    for phase, number in (("search", 3), ("validate", 4)):
        found, held = good["lengths"][phase], texts(phase, number)
        expected = [count(text) + 1 for text in held]  # a prompt begins with BOS
        assert found["context_tokens"] == {"min": min(expected), "median": median(expected), "max": max(expected)}
        answers = [count(name_in(text, which)) for text in held for which in ("early", "middle")]
        assert found["answer_tokens"] == {"min": min(answers), "median": median(answers), "max": max(answers)}
        assert (found["cut"], found["answers_lost"], found["answers_in_context"]) == (0, 0, 2 * number)
        assert found["longest"] == 2048


def test_scores_lie_between_an_empty_answer_and_a_gold_one(good: dict[str, Any]) -> None:
    found = good["scores"]
    assert found["n"] == 2
    assert found["gold"] == pytest.approx(1, abs=1e-6)
    assert found["empty"] == 0
    for name in ("dense", "without_context"):
        assert 0 <= found[name]["low"] <= found[name]["mean"] <= found[name]["high"] <= 1


def test_generated_tasks_need_no_data_and_are_drawn_at_the_length_of_a_run(tmp_path: Path, capsys) -> None:
    asked = ["task=ruler/niah_single_1", "search.max_context_length=300", "validate.max_context_length=600"]
    assert examine(doctor(tmp_path, *asked))
    found, said = written(tmp_path), capsys.readouterr().out
    assert "rows" not in found["data"]
    assert found["data"]["contexts"] == {"search": 2, "validate": 2}
    assert 130 < found["lengths"]["search"]["context_tokens"]["max"] < 300 - 128
    assert 430 < found["lengths"]["validate"]["context_tokens"]["max"] < 600 - 128
    assert found["scores"]["gold"] == 1
    assert "generated, at the length of the run" in said
    assert f"verdict: {found['verdict']}" in said.splitlines()


def test_answers_that_truncation_cuts_away_are_counted(tmp_path: Path, count) -> None:
    path, long = data(tmp_path, rows(sentences=60)), texts("search", 1, 60)[0]
    limit = ["search.max_context_length=200", "protocol.truncation=middle", "doctor.dense=false"]
    assert examine(doctor(tmp_path, TASK, path, *limit))
    found = written(tmp_path)
    assert count(long) > 300
    search = found["lengths"]["search"]
    assert (search["cut"], search["answers_in_context"], search["answers_lost"]) == (3, 6, 3)  # those in the middle
    assert (search["longest"], search["context_tokens"]["min"] > 300) == (200, True)
    assert found["lengths"]["validate"]["cut"] == 0
    assert {"what": "every answer in the search phase", "because": "3 of 6 are cut away with their contexts"} in found[
        "not_for"
    ]


def test_a_phase_that_loses_most_answers_spoils_a_run(tmp_path: Path) -> None:
    held = [one for one in rows(sentences=60) if one["answer"].startswith("middle")]
    limit = ["search.max_context_length=200", "protocol.truncation=middle"]
    assert not examine(doctor(tmp_path, TASK, data(tmp_path, held), *limit))
    [problem] = written(tmp_path)["problems"]
    assert problem.startswith("in the search phase 3 of 3 answers are cut away")
    assert problem.endswith("at 200 tokens; raise search.max_context_length")


def test_gold_answers_longer_than_what_may_be_generated_are_told(tmp_path: Path) -> None:
    held = [row(text, "many words that are an answer of this kind, all of them") for text in texts("search", 2)]
    held += [row(text, "yes") for text in texts("validate", 2)]
    asked = ["search.max_new_tokens=5", "doctor.dense=false"]
    assert examine(doctor(tmp_path, TASK, data(tmp_path, held), *asked))
    [told] = [one for one in written(tmp_path)["not_for"] if "whole answers" in one["what"]]
    assert told == {
        "what": "whole answers in the search phase",
        "because": "2 of 2 gold answers are longer than search.max_new_tokens allows",
    }


def test_a_question_and_answer_without_room_for_a_context_are_a_problem(tmp_path: Path) -> None:
    asked = ["validate.max_context_length=20", "doctor.dense=false"]
    assert not examine(doctor(tmp_path, TASK, data(tmp_path, rows()), *asked))
    [problem] = written(tmp_path)["problems"]
    assert problem.startswith("validate: ")
    assert "max_context_length=20" in problem


def test_questions_that_are_there_twice_are_told_and_contradictions_counted(tmp_path: Path) -> None:
    held = rows()
    again = [held[0], {**held[1], "answer": "another"}]
    assert examine(doctor(tmp_path, TASK, data(tmp_path, [*held, *again]), "doctor.dense=false"))
    found = written(tmp_path)
    assert (found["data"]["duplicates"], found["data"]["contradictions"]) == (2, 1)
    assert "2 questions of a context asked more than once" in found["verdict"]


def test_hidden_labels_spoil_a_run(tmp_path: Path) -> None:
    held = [{**one, "answer": ""} for one in rows()]
    assert not examine(doctor(tmp_path, TASK, data(tmp_path, held)))
    found = written(tmp_path)
    assert (found["data"]["rows"], found["data"]["rows_without_label"]) == (14, 14)
    assert "too few contexts" in found["verdict"]
    assert "scores" not in found


def test_labels_that_a_loader_lets_through_are_looked_at() -> None:
    from sahub.data.examples import Example, Question

    def example(key: str, *references: str) -> Example:
        asked = Question(id="0", text="?", references=references, max_new_tokens=1)
        return Example(id=key, context=key, questions=(asked,))

    spec = TaskSpec(benchmark="zero_scrolls", subset="quality", metric="accuracy", max_new_tokens=1)
    facts = dataset.facts_of({"search": [example("a", "x"), example("b", " "), example("c")], "validate": []}, None)
    assert facts["questions_without_label"] == 2
    assert dataset.problems(spec, facts) == [
        "2 of 3 questions have no label (empty, or hidden by the benchmark) that answers can be scored by"
    ]
    unscored = replace(spec, options={"unscored": True})  # scores are not wanted: answers are exported
    assert dataset.problems(unscored, facts) == []
    assert [what for what, _ in dataset.doubts(unscored, facts)] == ["scores"]


def test_a_missing_column_is_a_finding_with_its_place(tmp_path: Path) -> None:
    held = [{name: value for name, value in one.items() if name != "question"} for one in rows()]
    assert not examine(doctor(tmp_path, TASK, data(tmp_path, held)))
    [problem] = written(tmp_path)["problems"]
    assert "missing column question" in problem


def test_missing_data_are_named_with_the_command_without_a_model(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    with pytest.raises(MissingFiles, match="hf download --repo-type dataset simonjegou/loogle"):
        examine(doctor(tmp_path, TASK))
    with pytest.raises(MissingFiles) as caught:
        examine(doctor(tmp_path, TASK, *ABSENT))
    assert "hf download nobody/nothing" in str(caught.value)
    assert "hf download --repo-type dataset" in str(caught.value)
    assert len(str(caught.value).splitlines()) <= 8
    assert "hf download --repo-type dataset" in written(tmp_path)["problems"][0]


def test_data_are_examined_where_the_model_is_missing(tmp_path: Path, capsys) -> None:
    assert not examine(doctor(tmp_path, TASK, data(tmp_path, rows()), *ABSENT))
    found = written(tmp_path)
    assert found["data"]["contexts"] == {"search": 3, "validate": 4}
    assert "lengths" not in found
    [problem] = found["problems"]
    assert problem == "weights of nobody/nothing are not on this machine; fetch them: hf download nobody/nothing"
    assert "search 3, validate 4" in capsys.readouterr().out


def test_a_tokenizer_is_enough_for_lengths(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    for file in EMBEDDED.glob("*.json"):
        shutil.copy(file, model)  # no weights
    named = ["model=hf", f"model.path={model}", "doctor.dense=false"]
    assert examine(doctor(tmp_path, TASK, data(tmp_path, rows()), *named))
    assert written(tmp_path)["lengths"]["search"]["contexts"] == 3


def test_a_model_that_is_not_supported_leaves_the_data(tmp_path: Path) -> None:
    from transformers import MambaConfig

    MambaConfig(hidden_size=16, num_hidden_layers=2, vocab_size=64, state_size=4).save_pretrained(tmp_path / "model")
    named = ["model=hf", f"model.path={tmp_path / 'model'}"]
    assert not examine(doctor(tmp_path, TASK, data(tmp_path, rows()), *named))
    found = written(tmp_path)
    assert found["data"]["contexts"] == {"search": 3, "validate": 4}
    assert len(found["problems"]) == 1


def facts(dense: float, blind: float, low: float | None, gold: float = 1.0) -> dict[str, Any]:
    def around(mean: float) -> dict[str, float]:
        return {"mean": mean, "low": mean, "high": mean}

    apart = {"mean": dense - blind, "low": low, "high": 1.0}
    return {
        "n": 20, "gold": gold, "dense": around(dense), "without_context": around(blind), "empty": 0.0,
        "dense_minus_without_context": apart,
    }  # fmt: skip


def test_scores_at_the_floor_or_below_the_ceiling_are_told() -> None:
    assert floors.doubts(facts(0.9, 0.1, 0.6)) == []
    [(what, why)] = floors.doubts(facts(0.0, 0.0, -0.1))
    assert what == "telling methods apart"
    assert "not surely above the 0.0 % that answers without the context get" in why
    assert [what for what, _ in floors.doubts(facts(0.3, 0.2, -0.05))] == ["telling methods apart"]
    [(what, why)] = floors.doubts(facts(0.5, 0.1, 0.3, gold=0.7))
    assert (what, why) == ("full marks", "even gold answers score only 70.0 %")


@pytest.mark.parametrize(
    ("task", "references"),
    [
        ("longbench_v2/0shot", ("C",)),
        ("infinite_bench/code_debug", ("find_it", "B")),
        ("infinite_bench/longbook_choice_eng", ("a mill", "B")),
        ("infinite_bench/math_calc", ("79", "59", "73")),
        ("ruler/vt", ("ABCDE", "FGHIJ")),
        ("longbench/qasper", ("one answer", "another one")),
    ],
)
def test_a_gold_answer_has_full_marks_in_the_words_that_its_metric_looks_for(
    task: str, references: Sequence[str]
) -> None:
    from sahub.data.examples import Question

    benchmark, _, subset = task.partition("/")
    spec = TaskSpec(benchmark=benchmark, subset=subset, metric=primary_metric(task), max_new_tokens=1)
    asked = Question(id="0", text="?", references=tuple(references), max_new_tokens=1)
    assert floors.ceiling(spec, asked) == 1


def test_a_gold_answer_that_its_metric_cannot_find_is_below_the_ceiling() -> None:
    from sahub.data.examples import Question

    name = "infinite_bench/longdialogue_qa_eng"  # compares single words
    spec = TaskSpec(
        benchmark="infinite_bench", subset="longdialogue_qa_eng", metric=primary_metric(name), max_new_tokens=1
    )
    assert floors.ceiling(spec, Question(id="0", text="?", references=("AN INSPECTOR",), max_new_tokens=1)) == 0


def test_lost_answers_are_a_doubt_up_to_half_of_them_and_a_problem_beyond() -> None:
    def phase(lost: int) -> dict[str, Any]:
        held = {"answers_in_context": 10, "answers_lost": lost, "answers_too_long": 0, "answers": 12, "longest": 99}
        held |= {"control": 0}
        return {"search": held}

    assert [len(lengths.problems(phase(lost))) for lost in (0, 1, 5, 6, 10)] == [0, 0, 0, 1, 1]
    assert [len(lengths.doubts(phase(lost))) for lost in (0, 1, 5, 6, 10)] == [0, 1, 1, 0, 0]


@pytest.mark.parametrize(
    ("source", "path", "named", "generated"),
    [(None, None, None, True), ("generated", None, "a/b", True), (None, "x", None, False), (None, None, "a/b", False)],
)
def test_what_is_generated_has_no_rows(
    source: str | None, path: str | None, named: str | None, generated: bool
) -> None:
    spec = TaskSpec(
        benchmark="ruler", subset="vt", metric="m", max_new_tokens=1, source=source, path=path, dataset=named
    )
    assert spec.is_generated is generated


def test_the_command_prints_a_table_each_and_ends_with_a_status(tmp_path: Path) -> None:
    for name, held in (("good", rows()), ("hidden", [{**one, "answer": ""} for one in rows()])):
        (tmp_path / name).mkdir()
        data(tmp_path / name, held)
    done = sahub("doctor", "-m", TASK, "task.path=good,hidden", *QUICK, cwd=tmp_path)
    assert (done.returncode, done.stderr.strip()) == (1, "")
    for words in (
        "task loogle/shortdep_qa with model embedded",
        "search 3, validate 4",
        "without context",
        "nothing is",
    ):
        assert words in done.stdout
    good, hidden = (line for line in done.stdout.splitlines() if line.startswith("verdict: "))
    assert good.startswith("verdict: can be used for: a search on 3 contexts")
    assert hidden.startswith("verdict: can be used for: nothing here. not for: any search or validation because task=")
    assert [read(file)["usable"] for file in sorted(tmp_path.rglob("doctor.json"))] == [True, False]
