"""Data that are not as documented are named by file, row and column; layouts other than the mirrors' are read too."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from task_rows import (
    Row,
    contexts,
    everything,
    filler,
    infinite_bench,
    lines,
    load,
    longbench,
    prompt,
    rows_of,
    ruler,
    spec,
    write,
    write_zip,
)  # fmt: skip

from sahub.data.examples import Example, split_of
from sahub.data.loading import missing
from sahub.errors import ConfigError, DataError, MissingFiles

QASPER = [longbench("qasper", text) for text in contexts()]
ONE_BAD = {
    "NaN label": ({"answers": float("nan")}, "answers", r"nan \(float\): must be a text"),
    "NaN in a list": ({"answers": ["a", float("nan")]}, "answers", "must be a text, a number, or a list"),
    "no label": ({"answers": None}, "answers", "must hold an answer"),
    "empty labels": ({"answers": ["", " "]}, "answers", "must hold an answer"),
    "label of another type": ({"answers": {"a": 1}}, "answers", "must be a text"),
    "label true": ({"answers": True}, "answers", "must be a text"),
    "list in a list": ({"answers": [["a"]]}, "answers", "must be a text"),
    "number as context": ({"context": 7}, "context", r"7 \(int\): must be text"),
    "no context": ({"context": None}, "context", "must not be empty"),
    "list as question": ({"question": ["a"]}, "question", "must be text"),
    "text as length": ({"length": "long"}, "length", "must be a whole number"),
    "infinite length": ({"length": float("inf")}, "length", "must be a whole number"),
    "half a character": ({"question": "\ud83d"}, "question", "half of a surrogate pair"),
}


def error_of(path: Path, name: str = "longbench/qasper", **changes: Any) -> str:
    with pytest.raises(DataError) as error:
        load(spec(name, path=str(path), **changes))
    return str(error.value)


@pytest.mark.parametrize("bad", ONE_BAD)
def test_a_bad_cell_is_named_by_file_line_and_column(bad: str, tmp_path: Path) -> None:
    change, column, must = ONE_BAD[bad]
    rows = [*QASPER[:3], QASPER[3] | change]
    file = write(tmp_path / "qasper.jsonl", rows)
    with pytest.raises(DataError, match=rf"qasper\.jsonl:4: column {column} is .*{must}"):
        load(spec("longbench/qasper", path=str(file)))
    if bad in ("label of another type", "label true", "half a character", "NaN in a list"):  # no table can hold these
        return
    table = pa.table({key: pa.array([row[key] for row in rows[3:]], from_pandas=False) for key in rows[0]})
    pa.parquet.write_table(table, tmp_path / "qasper.parquet")
    with pytest.raises(DataError, match=rf"qasper\.parquet: row 0: column {column} is .*{must}"):
        load(spec("longbench/qasper", path=str(tmp_path / "qasper.parquet")))


def test_numbers_and_nulls_among_texts_are_texts(tmp_path: Path) -> None:
    rows = [row | {"answers": [7, "seven", None, 7.5]} for row in QASPER]
    [first, *_] = load(spec("longbench/qasper", path=str(write(tmp_path / "x.jsonl", rows))))
    assert first.questions[0].references == ("7", "seven", "7.5")


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_bytes(lines(QASPER[:1]).encode() + b'{"context": "\xff\xfe"}\n')
    assert "a.jsonl:2: not UTF-8 (byte 13)" in error_of(tmp_path / "a.jsonl")
    (tmp_path / "b.json").write_text('[{"context": 1},', "utf-8")
    assert "b.json: not JSON" in error_of(tmp_path / "b.json")
    (tmp_path / "c.jsonl").write_text("[" * 100_000, "utf-8")
    assert "c.jsonl: not JSON" in error_of(tmp_path / "c.jsonl")
    (tmp_path / "d.jsonl").write_text("7\n", "utf-8")
    assert "d.jsonl:1: a int: must be an object" in error_of(tmp_path / "d.jsonl")
    (tmp_path / "e.zip").write_bytes(b"PK\x03\x04 not a zip")
    assert "e.zip: not a zip file" in error_of(tmp_path / "e.zip")
    write_zip(tmp_path / "f.zip", {"data/trec.jsonl": []})
    assert "f.zip: holds no qasper/test.jsonl" in error_of(tmp_path / "f.zip")
    whole = write(tmp_path / "whole.parquet", QASPER).read_bytes()
    (tmp_path / "g.parquet").write_bytes(whole[: len(whole) // 2])
    assert "g.parquet: not a parquet file" in error_of(tmp_path / "g.parquet")
    (tmp_path / "h.parquet").write_bytes(whole[:40] + b"\xff" * 60 + whole[100:])
    assert "h.parquet" in error_of(tmp_path / "h.parquet")


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json", "zip"])
def test_empty_files_are_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / f"x.{suffix}").write_bytes(b"")
    assert f"x.{suffix}" in error_of(tmp_path / f"x.{suffix}") or "no row of qasper" in error_of(
        tmp_path / f"x.{suffix}"
    )
    table = pa.Table.from_pylist(QASPER).slice(0, 0)
    pa.parquet.write_table(table, tmp_path / "empty.parquet")
    assert "no row of qasper" in error_of(tmp_path / "empty.parquet")


def test_text_that_is_no_unicode_in_a_table_is_named(tmp_path: Path) -> None:
    columns = {name: [row[name] for row in QASPER] for name in ("context", "answer_prefix", "answers", "length")}
    bad = pa.array([b"good"] * 4 + [b"b\xe4d", b"good"]).cast(pa.binary())
    question = pa.Array.from_buffers(pa.string(), len(bad), bad.buffers())
    pa.parquet.write_table(pa.table({**columns, "question": question}), tmp_path / "x.parquet")
    assert "x.parquet: row 4: column question: not UTF-8 (byte 1)" in error_of(tmp_path / "x.parquet")


@pytest.mark.parametrize("column", ["context", "question", "answer_prefix", "answers"])
@pytest.mark.parametrize("suffix", ["parquet", "jsonl"])
def test_a_missing_column_is_named(tmp_path: Path, column: str, suffix: str) -> None:
    rows = [{key: value for key, value in row.items() if key != column} for row in QASPER]
    told = error_of(write(tmp_path / f"qasper.{suffix}", rows))
    assert f"missing column {column}; it has" in told
    assert f"qasper.{suffix}" in told


def test_the_length_that_decides_a_bucket_must_be_there(tmp_path: Path) -> None:
    rows = [{key: value for key, value in row.items() if key != "length"} for row in QASPER]
    file = write(tmp_path / "qasper_e.parquet", rows)
    assert "missing column length" in error_of(file, "longbench_e/qasper")
    assert load(spec("longbench/qasper", path=str(file)))
    unknown = write(tmp_path / "null" / "qasper_e.jsonl", [row | {"length": None} for row in QASPER])
    assert "qasper_e.jsonl:1: column length is None: must be a whole number" in error_of(unknown, "longbench_e/qasper")
    assert load(spec("longbench/qasper", path=str(unknown)))


def test_classes_must_be_there(tmp_path: Path) -> None:
    rows = [longbench("trec", text) | {"all_classes": None} for text in contexts()]
    assert "column all_classes is None: must hold the classes" in error_of(
        write(tmp_path / "x.jsonl", rows), "longbench/trec"
    )


def test_the_wrong_split_is_not_read(tmp_path: Path) -> None:
    write(tmp_path / "qasper" / "train-00000-of-00001.parquet", QASPER)
    task = spec("longbench/qasper", path=str(tmp_path))
    assert "no data of qasper, split test" in str(missing(task))
    with pytest.raises(MissingFiles):
        load(task)
    write(tmp_path / "qasper" / "test-00000-of-00001.parquet", QASPER[:2])
    assert len(everything(task)) == 2


def test_the_folder_of_a_configuration_is_its_data_whatever_a_column_says(tmp_path: Path) -> None:
    rows = [row | {"task": "default"} for row in QASPER]
    write(tmp_path / "qasper" / "test-00000-of-00001.parquet", rows)
    assert len(everything(spec("longbench/qasper", path=str(tmp_path)))) == len(QASPER)
    loose = write(tmp_path / "loose" / "test.parquet", rows)
    assert "no row of qasper in 1 file(s); their task: default" in error_of(loose)
    assert len(everything(spec("longbench/qasper", path=str(loose), where={"task": "default"}))) == len(QASPER)


def test_the_authors_zip_gets_our_prompts(tmp_path: Path) -> None:
    names = ("lsht", "lsht_e", "vcsum")
    bare = [
        {
            "input": "新闻",
            "context": text,
            "answers": ["体育"],
            "length": 9,
            "all_classes": ["体育", "天气"],
            "_id": text[:9],
        }
        for text in contexts()
    ]
    write_zip(tmp_path / "data.zip", {f"data/{name}.jsonl": bare if name == "lsht" else [] for name in names})
    task = spec("longbench/lsht", path=str(tmp_path))
    examples = everything(task)
    assert len(examples) == len(bare)
    for example in examples:
        [question] = example.questions
        assert any(row["context"] in example.context for row in bare)
        assert "新闻" in question.text
        assert (question.references, question.metadata["all_classes"]) == (("体育",), ["体育", "天气"])
    assert "no row of vcsum" in error_of(tmp_path, "longbench/vcsum")


def test_bare_multiple_choice_gets_its_options(tmp_path: Path) -> None:
    ready = rows_of("longbench_v2/0shot")
    bare = [{**row, "question": "What is it?"} for row in ready]
    for row in bare:
        del row["answer_prefix"], row["task"]
    write(tmp_path / "data.json", bare)
    [first, *_] = load(spec("longbench_v2/0shot", path=str(tmp_path), split="train", files="data.json"))
    question = first.questions[0]
    assert "(C) the C thing" in question.text
    assert "The correct answer is (" in question.text
    assert (question.answer_prefix, question.references) == ("", ("C",))
    assert question.metadata == {"difficulty": "easy", "length": "short"}
    [same, *_] = load(spec("longbench_v2/0shot", path=str(write(tmp_path / "x.parquet", ready))))
    assert same.questions[0].text == ready[0]["question"]
    assert "must be one of A, B, C, D" in error_of(
        write(tmp_path / "y.jsonl", [{**row, "answer": "E"} for row in ready]), "longbench_v2/0shot"
    )


def test_labels_of_choices_get_their_text_back(tmp_path: Path) -> None:
    for subset in ("longbook_choice_eng", "code_debug"):
        rows = [infinite_bench(subset, text) for text in contexts()]
        [first, *_] = load(spec(f"infinite_bench/{subset}", path=str(write(tmp_path / f"{subset}.parquet", rows))))
        assert first.questions[0].references == ("two things", "B")
        bad = write(tmp_path / "bad" / f"{subset}.jsonl", [{**row, "question": "no options"} for row in rows])
        assert f"{subset}.jsonl:1: column answer is" in error_of(bad, f"infinite_bench/{subset}")


@pytest.mark.parametrize(
    ("subset", "answer", "references"),
    [
        ("passkey", "71432", ("71432",)),
        ("math_find", 88, ("88",)),
        ("math_find", 88.5, ("88.5",)),
        ("math_calc", [79, 59], ("79", "59")),
        ("math_calc", [[79, 59]], ("79", "59")),
        ("code_run", -24, ("-24",)),
        ("longdialogue_qa_eng", ["ACE", "ACE HARLAN"], ("ACE", "ACE HARLAN")),
        ("code_debug", ["g"], ("g", "B")),
    ],
)
def test_rows_of_infinite_benchs_authors(tmp_path: Path, subset: str, answer: Any, references: tuple[str, ...]) -> None:
    rows = [
        {"id": number, "context": text, "input": "Which?", "answer": answer, "options": ["f", "g", "h", "i"]}
        for number, text in enumerate(contexts())
    ]
    write(tmp_path / f"{subset}.jsonl", rows)
    [first, *_] = load(spec(f"infinite_bench/{subset}", path=str(tmp_path)))
    assert first.questions[0].references == references
    assert ("B. g" in first.questions[0].text) == (subset == "code_debug")


def test_generated_and_stored_are_told_apart(tmp_path: Path) -> None:
    drawn = spec("infinite_bench/passkey", source="generated")
    assert missing(drawn) is None
    assert missing(spec("infinite_bench/passkey")) is not None
    with pytest.raises(ConfigError, match=r"task\.path=.* must be null"):
        missing(spec("infinite_bench/passkey", source="generated", path=str(tmp_path)))
    with pytest.raises(ConfigError, match=r"is not generated"):
        missing(spec("infinite_bench/longbook_qa_eng", source="generated", options={}))
    with pytest.raises(ConfigError, match=r"longbench/qasper is not generated"):
        missing(spec("longbench/qasper", source="generated"))
    with pytest.raises(ConfigError, match=r"task\.source=mirror: must be generated, files or null"):
        spec("infinite_bench/passkey", source="mirror")


def stored(tmp_path: Path, **changes: Any) -> list[Example]:
    return load(spec("ruler/vt", path=str(tmp_path), **changes))


def test_stored_ruler_prompts_of_a_length(tmp_path: Path) -> None:
    rows = [ruler(subset, text) for text in contexts() for subset in ("vt", "cwe")]
    write(tmp_path / "4096" / "test-00000-of-00001.parquet", rows)
    write(tmp_path / "8192" / "test-00000-of-00001.parquet", [ruler("cwe", text) for text in contexts()])
    assert len(stored(tmp_path, length=4096)) == 3
    with pytest.raises(DataError, match="no row of vt in 1 file"):
        stored(tmp_path, length=8192)
    by_task = write(tmp_path / "other" / "vt" / "vt-00000-of-00001.parquet", [ruler("vt", text) for text in contexts()])
    assert len(stored(by_task.parents[1])) == 3


def test_where_stored_ruler_prompts_are(monkeypatch: pytest.MonkeyPatch) -> None:
    def told(**changes: Any) -> str:
        return str(missing(spec("ruler/vt", **{"source": "files", **changes})))

    assert "--repo-type dataset simonjegou/ruler --include '8192/*'" in told(length=8192)
    assert "--repo-type dataset xAlg-AI/att-hub-ruler-32k --include 'vt/*'" in told(length=32768)
    assert "DIR/vt/vt-*.parquet" in told(dataset="xAlg-AI/att-hub-ruler-16k")
    assert "DIR/vt/vt-*.parquet" in told(dataset="xAlg-AI/att-hub-ruler-16k", source=None)
    for length in (None, 5000):
        with pytest.raises(ConfigError, match=rf"task\.length={length}: must be one of 4096, 8192, 16384, 32768"):
            told(length=length)


def test_several_references_of_one_question_are_rows_with_one_id(tmp_path: Path) -> None:
    rows = rows_of("zero_scrolls/squality")
    twice = [*rows, *({**row, "output": "Another one."} for row in rows)]
    write_zip(tmp_path / "squality.zip", {"squality/validation.jsonl": twice, "squality/test.jsonl": rows})
    task = spec("zero_scrolls/squality", path=str(tmp_path))
    for example in load(task):
        [question] = example.questions
        assert question.references == ("Nothing happened.", "Another one.")
        assert question.id.startswith("squality-")
        assert question.text.strip() == "Question:\nWhat happened?"
        assert question.answer_prefix == "Answer:"
        assert example.context.endswith(". ")


def test_zero_scrolls_without_gold_is_an_error_unless_asked_for(tmp_path: Path) -> None:
    rows = [prompt(text, "quality", answer="", id=f"id{number}") for number, text in enumerate(contexts())]
    other = [prompt(text, "qasper", answer="") for text in contexts()]
    write(tmp_path / "test-00000-of-00001.parquet", [{**row, "id": row.get("id")} for row in rows + other])
    task = {"path": str(tmp_path), "split": "test", "files": "*.parquet"}
    assert "no gold answer: task=zero_scrolls/quality is scored on the validation split" in error_of(
        tmp_path, "zero_scrolls/quality", split="test", files="*.parquet"
    )
    examples = load(spec("zero_scrolls/quality", **task, options={"unscored": True}))
    assert [question.references for example in examples for question in example.questions] == [(), (), ()]
    bad = [{**row, "document_end_index": 10**6} for row in rows_of("zero_scrolls/qasper")]
    told = error_of(write(tmp_path / "qasper.jsonl", bad), "zero_scrolls/qasper")
    assert "qasper.jsonl:1: column document_end_index is 1000000 (int): must lie within the input" in told


def test_contexts_of_a_million_characters_are_read(tmp_path: Path) -> None:
    rows: list[Row] = [{**row, "context": row["context"] * 8000} for row in QASPER[:2]]
    file = write(tmp_path / "x.parquet", rows)
    found = everything(spec("longbench/qasper", path=str(file)))
    assert {example.context for example in found} == {row["context"] for row in rows}


def test_names_of_zip_members_cannot_leave_the_archive(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "qasper.zip", "w") as archive:
        archive.writestr("../../qasper.jsonl", json.dumps(QASPER[0] | {"answers": list(QASPER[0]["answers"])}))
    [example] = load(spec("longbench/qasper", path=str(tmp_path / "qasper.zip")), split_of(QASPER[0]["context"]))
    assert example.context == filler(int(example.context.split(".")[0].split()[-1]))
    assert sorted(file.name for file in tmp_path.iterdir()) == ["qasper.zip"]


def test_numpy_arrays_in_a_row_are_written_as_lists() -> None:
    assert all(isinstance(row["answers"], np.ndarray) for row in QASPER)
