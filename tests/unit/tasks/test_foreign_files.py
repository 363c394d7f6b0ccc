"""Files as other people leave them: read as what their columns say, or refused with file, row and column."""

import gzip
import json
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet
import pytest
from task_rows import Row, contexts, everything, lines, load, rows_of, spec, write, write_zip

from sahub import scores
from sahub.data.loading import missing
from sahub.errors import DataError

QASPER = rows_of("longbench/qasper")


def told(name: str, path: Path, **changes: Any) -> str:
    with pytest.raises(DataError) as error:
        everything(spec(name, path=str(path), **changes))
    return str(error.value)


def answers(name: str, path: Path, **changes: Any) -> list[tuple[str, ...]]:
    found = everything(spec(name, path=str(path), **changes))
    return [question.references for example in found for question in example.questions]


@pytest.mark.parametrize(
    "name", ["._part-0.jsonl", ".part-0.jsonl", ".ipynb_checkpoints.json", "dataset_info.json", "state.json"]
)
@pytest.mark.parametrize("place", ["qasper", "."])
def test_what_lies_beside_data_is_no_data(name: str, place: str, tmp_path: Path) -> None:
    write(tmp_path / place / "qasper.jsonl", QASPER)
    (tmp_path / place / name).write_bytes(b"\x00\x05\x16\x07 Mac OS X \xa3")
    assert len(everything(spec("longbench/qasper", path=str(tmp_path)))) == len(QASPER)
    (tmp_path / place / "qasper.jsonl").unlink()
    assert "no data of qasper" in str(missing(spec("longbench/qasper", path=str(tmp_path))))


def test_what_a_mac_leaves_in_a_zip_is_no_data(tmp_path: Path) -> None:
    write_zip(
        tmp_path / "x.zip",
        {"__MACOSX/data/._qasper.jsonl": [{"a": 1}], "._qasper.jsonl": [], "data/qasper.jsonl": QASPER},
    )
    assert len(everything(spec("longbench/qasper", path=str(tmp_path / "x.zip")))) == len(QASPER)


def table(rows: list[Row]) -> pa.Table:
    return pa.Table.from_pylist([{key: _plain(value) for key, value in row.items()} for row in rows])


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def arrow(file: Path, rows: list[Row], *, indexed: bool = False) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    held = table(rows)
    with (pa.ipc.new_file if indexed else pa.ipc.new_stream)(str(file), held.schema) as writer:
        writer.write_table(held, max_chunksize=2)
    return file


@pytest.mark.parametrize("indexed", [False, True])
@pytest.mark.parametrize("place", ["qasper", "qasper/test", "test", "."])
def test_folders_of_save_to_disk_are_read(place: str, indexed: bool, tmp_path: Path) -> None:
    folder = tmp_path / place
    arrow(folder / "data-00000-of-00002.arrow", QASPER[:3], indexed=indexed)
    arrow(folder / "data-00001-of-00002.arrow", QASPER[3:], indexed=indexed)
    for name in ("dataset_info.json", "state.json"):
        (folder / name).write_text('{"citation": ""}')
    (folder.parent / "dataset_dict.json").write_text('{"splits": ["test"]}')
    found = everything(spec("longbench/qasper", path=str(tmp_path)))
    assert found == everything(spec("longbench/qasper", path=str(write(tmp_path / "x" / "qasper.jsonl", QASPER))))


ONE_EACH = (
    "ruler/vt", "loogle/shortdep_cloze", "longbench/trec", "longbench_v2/0shot", "infinite_bench/math_calc",
    "zero_scrolls/qasper",
)  # fmt: skip
LARGE = {pa.string(): pa.large_string(), pa.list_(pa.string()): pa.large_list(pa.large_string())}


def in_large_types(held: pa.Table) -> pa.Table:
    return held.cast(pa.schema([(field.name, LARGE.get(field.type, field.type)) for field in held.schema]))


@pytest.mark.parametrize("suffix", ["parquet", "arrow", "jsonl", "json", "jsonl.gz", "json.gz", "zip", "bom", "large"])
def test_every_format_of_every_benchmark_gives_the_same_examples(suffix: str, tmp_path: Path) -> None:
    for name in ONE_EACH:
        rows, subset = rows_of(name), name.partition("/")[2]
        expected = everything(spec(name, path=str(write(tmp_path / name / "plain" / f"{subset}.jsonl", rows))))
        folder = tmp_path / name / suffix
        folder.mkdir()
        text = lines(rows).encode()
        if suffix == "arrow":
            arrow(folder / f"{subset}.arrow", rows)
        elif suffix == "zip":
            write_zip(folder / f"{subset}.zip", {f"{subset}.jsonl": rows})
        elif suffix.endswith("gz"):
            listed = json.dumps([json.loads(line) for line in text.splitlines()]).encode()
            (folder / f"{subset}.{suffix}").write_bytes(gzip.compress(text if suffix == "jsonl.gz" else listed))
        elif suffix == "bom":
            (folder / f"{subset}.jsonl").write_bytes(b"\xef\xbb\xbf\r\n" + text.replace(b"\n", b"\r\n\r\n"))
        elif suffix == "large":
            pa.parquet.write_table(in_large_types(table(rows)), folder / f"{subset}.parquet")
        else:
            write(folder / f"{subset}.{suffix}", rows)
        assert everything(spec(name, path=str(folder))) == expected, name


@pytest.mark.parametrize("suffix", ["jsonl", "json", "parquet", "arrow", "zip", "jsonl.gz"])
def test_a_pointer_of_git_lfs_is_named(suffix: str, tmp_path: Path) -> None:
    (tmp_path / f"qasper.{suffix}").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n")
    assert f"qasper.{suffix}: a Git LFS pointer, not the file itself; fetch it: git lfs pull" in told(
        "longbench/qasper", tmp_path
    )


def test_a_gz_that_is_none_and_a_torn_one_are_named(tmp_path: Path) -> None:
    whole = gzip.compress(lines(QASPER).encode())
    for content in (b"{}", whole[:-20], whole[:60] + b"\xff" * 20 + whole[80:]):
        (tmp_path / "qasper.jsonl.gz").write_bytes(content)
        assert "qasper.jsonl.gz" in told("longbench/qasper", tmp_path)


def test_layouts_are_decided_by_columns_never_by_content(tmp_path: Path) -> None:
    choices = {f"choice_{letter}": str(number) for number, letter in enumerate("ABCD", 1)}
    bare = [
        {
            "context": text,
            "question": "1, 2, 3 or 4?",
            "answer": "D",
            "difficulty": "easy",
            "length": "short",
            **choices,
        }
        for text in contexts()
    ]
    for example in everything(spec("longbench_v2/0shot", path=str(write(tmp_path / "a" / "x.json", bare)))):
        assert all(f"({letter}) {number}" in example.questions[0].text for number, letter in enumerate("ABCD", 1))
    ready = [row | {"answer_prefix": ""} for row in bare]
    for example in everything(spec("longbench_v2/0shot", path=str(write(tmp_path / "b" / "x.json", ready)))):
        assert example.questions[0].text == "1, 2, 3 or 4?"
    mixed = write(tmp_path / "c" / "x.jsonl", [*ready[:2], *bare[2:]])
    assert "x.jsonl:3: missing column answer_prefix" in told("longbench_v2/0shot", mixed)


PAIRS = [{"Q": "Who bakes?", "A": "Ada", "S": ["x"]}, {"Q": "Who 'sings'?", "A": "Bo", "S": []}]
MASKED = [{"Q": "<mask-0> bakes.", "A": {"<mask-0>": "Ada"}, "S": []}]


@pytest.mark.parametrize("written", [str, json.dumps, lambda pairs: pairs])
def test_loogle_as_its_authors_publish_it(written: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    for subset, pairs, gold in (
        ("shortdep_qa", PAIRS, [("Ada",), ("Bo",)]),
        ("longdep_qa", PAIRS, [("Ada",), ("Bo",)]),
        ("shortdep_cloze", MASKED, [('{"<mask-0>": "Ada"}',)]),
    ):
        rows = [{"input": text, "title": "t", "qa_pairs": written(pairs), "output": ""} for text in contexts()]
        rows[0]["qa_pairs"] = "none" if written is str else []
        file = write(tmp_path / f"{subset}.jsonl", rows)
        assert answers(f"loogle/{subset}", file) == gold * (len(rows) - 1)
        assert f"rows_left_out=1 first: {file}:1: column qa_pairs: no questions" in caplog.text
        example = load(spec(f"loogle/{subset}", path=str(file)))[0]
        assert any(row["input"] in example.context for row in rows)
        assert pairs[0]["Q"] in example.questions[0].text
    for bad in ("[1]", "[{'Q': 1}]", "{'Q': 'a'}", "Ada", 7, [{"Q": "a", "A": 3}]):
        write(file, [row | {"qa_pairs": bad} for row in rows])
        assert "shortdep_cloze.jsonl:1: column qa_pairs is" in told("loogle/shortdep_cloze", file)


def test_summaries_as_loogles_authors_publish_them(tmp_path: Path) -> None:
    rows = [{"input": text, "title": "t", "qa_pairs": "none", "output": f"About {text[:14]}."} for text in contexts()]
    found = answers("loogle/longdep_summarization", write(tmp_path / "longdep_summarization.jsonl", rows))
    assert sorted(found) == sorted((row["output"],) for row in rows)


LISTS = ["['Ada', 'the baker']", '["Ada"]', "[]", "['a' 'b']", "array(['a'], dtype=object)", " [1, 2] ", "[1.0]"]


@pytest.mark.parametrize("text", LISTS)
def test_a_list_that_was_written_as_text_is_refused(text: str, tmp_path: Path) -> None:
    for name, column in (
        ("longbench/qasper", "answers"), ("longbench/trec", "all_classes"), ("ruler/vt", "answer"),
        ("loogle/longdep_qa", "answer"), ("longbench_v2/0shot", "answer"), ("zero_scrolls/qasper", "output"),
        ("infinite_bench/longbook_qa_eng", "answer"), ("infinite_bench/kv_retrieval", "answer"),
    ):  # fmt: skip
        file = write(tmp_path / name / "x.jsonl", [row | {column: text} for row in rows_of(name)])
        assert f"x.jsonl:1: column {column} is {text!r}"[:60] in told(name, file)
    inside = write(tmp_path / "ok.jsonl", [row | {"answers": [text]} for row in QASPER])
    assert set(answers("longbench/qasper", inside)) == {(text,)}  # of a list's own texts nobody asks


@pytest.mark.parametrize("text", ["[x]", "[a, b", "see [1]", "{a}", "(1)", "1, 2", "[^1]"])
def test_other_texts_with_brackets_are_texts(text: str, tmp_path: Path) -> None:
    file = write(tmp_path / "x.jsonl", [row | {"answers": text} for row in QASPER])
    assert set(answers("longbench/qasper", file)) == {(text,)}


@pytest.mark.parametrize(
    ("name", "column", "value", "reference"),
    [
        ("longbench/passage_count", "answers", [12.0], "12"),
        ("longbench/passage_count", "answers", 12.0, "12"),
        ("longbench/qasper", "answers", [7.5, -3.0], "7.5"),
        ("ruler/niah_single_1", "answer", [4082716.0], "4082716"),
        ("infinite_bench/passkey", "answer", [71432.0], "71432"),
        ("infinite_bench/number_string", "answer", 2200012222, "2200012222"),
        ("infinite_bench/code_run", "answer", [-24.0], "-24"),
    ],
)
def test_numbers_that_went_through_a_table_can_be_answered(
    name: str, column: str, value: Any, reference: str, tmp_path: Path
) -> None:
    for suffix in ("jsonl", "parquet"):
        file = write(tmp_path / f"x.{suffix}", [row | {column: value} for row in rows_of(name)])
        found = answers(name, file)
        assert {gold[0] for gold in found} == {reference}
        assert {scores.score(name, reference, gold) for gold in found} <= {1.0}


@pytest.mark.parametrize(
    ("name", "column", "value", "must"),
    [
        ("longbench/passage_count", "answers", ["12.0"], "be a number in digits"),
        ("longbench/passage_count", "answers", ["twelve"], "be a number in digits"),
        ("longbench/passage_retrieval_en", "answers", ["12"], "name a paragraph"),
        ("longbench/passage_retrieval_zh", "answers", ["Paragraph 1"], "name a paragraph"),
        ("longbench/trec", "answers", ["Nobody"], "must be one of the classes"),
        ("longbench_e/passage_count", "answers", ["3.5"], "be a number in digits"),
        ("loogle/shortdep_cloze", "answer", "{'<mask-0>': 'Ada'}", "must be a JSON object of masks"),
        ("loogle/shortdep_cloze", "answer", "[]]", "must be a JSON object of masks"),
        ("loogle/shortdep_cloze", "answer", '{"<mask-0>": 3}', "must stand for a text"),
        ("infinite_bench/passkey", "answer", ["71432.5"], "one number in digits"),
        ("infinite_bench/number_string", "answer", ["22 33"], "one number in digits"),
        ("infinite_bench/kv_retrieval", "answer", ["a b"], "one word without marks"),
        ("infinite_bench/kv_retrieval", "answer", ["{a}"], "one word without marks"),
        ("infinite_bench/code_run", "answer", ["7.5"], "must be a whole number"),
        ("ruler/vt", "answer", ["a\tb"], "no control characters"),
        ("longbench_v2/0shot", "answer", "ABCD", "must be one of A, B, C, D"),
        ("longbench_v2/0shot", "answer", "AB", "must be one of A, B, C, D"),
        ("zero_scrolls/quality", "output", "none of them", "name a letter from A to D"),
        ("zero_scrolls/space_digest", "output", "sixty", "hold a percentage"),
        ("zero_scrolls/book_sum_sort", "output", "first, second", "be whole numbers"),
    ],
)
def test_gold_answers_that_no_answer_can_match_are_refused_with_their_place(
    name: str, column: str, value: Any, must: str, tmp_path: Path
) -> None:
    rows = rows_of(name)
    file = write(tmp_path / "x.jsonl", [*rows[:3], rows[3] | {column: value}, *rows[4:]])
    said = told(name, file)
    assert f"x.jsonl:4: column {column}" in said
    assert must in said
    assert len(said.splitlines()) == 1


def test_every_subset_with_a_check_has_metrics() -> None:
    for benchmark in scores.BENCHMARKS.values():
        assert {*benchmark.checks} <= {*benchmark.subsets}
