"""The LooGLE loader on local folders of the documented schema, and on the caches that other tools fill."""

import json
import socket
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
import pytest
from commands import environment, python

from sahub.data.examples import Example, TaskSpec, example_id, split_of
from sahub.data.loading import load_examples, missing
from sahub.errors import ConfigError, DataError, MissingFiles

Row = dict[str, Any]


def row(context: int, question: int, /, **changes: Any) -> Row:
    text = f"Context number {context}. " + "Nothing happened. " * 5
    values = {
        "context": text,
        "question": f"Question {question}?",
        "answer_prefix": "Answer:",
        "answer": f"answer {context}.{question}",
        "max_new_tokens": 300,
        "task": "shortdep_qa",
    }
    return values | changes


ROWS = [row(context, question) for question in range(3) for context in range(40)]


def spec(path: Path | None, subset: str = "shortdep_qa", **changes: Any) -> TaskSpec:
    values: Row = {"benchmark": "loogle", "subset": subset, "metric": "rouge-l-recall", "max_new_tokens": 300}
    return TaskSpec(**(values | {"path": path and str(path), "dataset": "simonjegou/loogle"} | changes))


def load(task: TaskSpec, split: str = "validate", limit: int | None = None, seed: int = 0) -> list[Example]:
    return load_examples(task, split=split, limit=limit, length=0, count_tokens=len, seed=seed)


def write(file: Path, rows: list[Row]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(rows), file)
    elif file.suffix == ".jsonl":
        file.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    else:
        file.write_text(json.dumps(rows, indent=1), "utf-8")
    return file


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize("stem", ["shortdep_qa/test-00000-of-00001", "shortdep_qa", "all"])
def test_every_layout_gives_the_same_examples(tmp_path: Path, stem: str, suffix: str) -> None:
    expected = load(spec(write(tmp_path / "whole" / "file.jsonl", ROWS)))
    others = [row(1, 9, task="longdep_qa")] if stem == "all" else []
    write(tmp_path / f"{stem}.{suffix}", ROWS + others)
    assert load(spec(tmp_path)) == expected


def test_several_parquet_files_are_one_data_set(tmp_path: Path) -> None:
    write(tmp_path / "shortdep_qa" / "test-00000-of-00002.parquet", ROWS[:50])
    write(tmp_path / "shortdep_qa" / "test-00001-of-00002.parquet", ROWS[50:])
    assert sum(len(e.questions) for split in ("search", "validate") for e in load(spec(tmp_path), split)) == len(ROWS)


def test_questions_of_a_context_are_grouped(tmp_path: Path) -> None:
    for example in load(spec(write(tmp_path / "x.parquet", ROWS))):
        assert example.id == example_id(example.context)
        assert [q.text for q in example.questions] == ["Question 0?", "Question 1?", "Question 2?"]
        assert [q.id for q in example.questions] == ["0", "1", "2"]
        first = example.questions[0]
        number = example.context.split(".")[0].split()[-1]
        assert (first.references, first.answer_prefix, first.max_new_tokens) == (
            (f"answer {number}.0",),
            "Answer:",
            300,
        )


def test_splits_are_disjoint_and_together_everything(tmp_path: Path) -> None:
    task = spec(write(tmp_path / "x.parquet", ROWS))
    search, validate = ({e.id for e in load(task, split)} for split in ("search", "validate"))
    assert not search & validate
    assert search | validate == {example_id(r["context"]) for r in ROWS}
    assert search == {example_id(r["context"]) for r in ROWS if split_of(r["context"]) == "search"}


def test_a_quarter_of_contexts_is_for_search() -> None:
    share = sum(split_of(f"context {i}") == "search" for i in range(4000)) / 4000
    assert 0.22 < share < 0.28


def test_limit_takes_the_beginning_of_a_seeded_order(tmp_path: Path) -> None:
    task = spec(write(tmp_path / "x.parquet", ROWS))
    backwards = spec(write(tmp_path / "y.parquet", ROWS[::-1]))
    everything = load(task)
    assert load(task, limit=5) == everything[:5]
    assert [e.id for e in load(backwards)] == [e.id for e in everything]
    assert load(task, seed=1) != everything


def test_questions_option_bounds_the_questions_of_a_context(tmp_path: Path) -> None:
    task = spec(write(tmp_path / "x.parquet", ROWS), options={"questions": 2})
    assert {len(e.questions) for e in load(task)} == {2}
    with pytest.raises(ConfigError, match=r"task\.options\.questions=0: must be at least 1"):
        load(spec(tmp_path / "x.parquet", options={"questions": 0}))


def test_rows_without_question_or_answer_are_left_out(tmp_path: Path) -> None:
    empty = [row(50 + i, 0, question=" ", answer="") for i in range(20)] + [row(i, 7, question=None) for i in range(40)]
    task = spec(write(tmp_path / "x.jsonl", ROWS + empty))
    assert load(task) == load(spec(write(tmp_path / "y.jsonl", ROWS)))


def test_a_summary_needs_no_question(tmp_path: Path) -> None:
    rows = [row(i, 0, question="\n", task="longdep_summarization") for i in range(20)]
    assert load(spec(write(tmp_path / "x.jsonl", rows), "longdep_summarization"))


def test_list_columns_come_back_as_texts(tmp_path: Path) -> None:
    rows = [r | {"answer": np.array([r["answer"], "another"])} for r in ROWS]
    references = load(spec(write(tmp_path / "x.parquet", rows)))[0].questions[0].references
    assert references[1] == "another"
    assert all(type(text) is str for text in references)


def test_cloze_masks_become_one_json_object(tmp_path: Path) -> None:
    rows = [
        row(i, 0, task="shortdep_cloze", answer={"<mask-0>": "Ada"} if i else {"<mask-1>": "Bo"}) for i in range(20)
    ]
    examples = load(spec(write(tmp_path / "x.parquet", rows), "shortdep_cloze"))
    assert {e.questions[0].references for e in examples} <= {('{"<mask-0>": "Ada"}',), ('{"<mask-1>": "Bo"}',)}


@pytest.mark.parametrize("suffix", ["parquet", "jsonl", "json"])
@pytest.mark.parametrize("column", ["context", "question", "answer_prefix", "answer"])
def test_a_missing_column_is_named(tmp_path: Path, suffix: str, column: str) -> None:
    rows = [{key: value for key, value in r.items() if key != column} for r in ROWS]
    file = write(tmp_path / "shortdep_qa" / f"test.{suffix}", rows)
    with pytest.raises(DataError, match=rf"{file.name}.*: missing column {column};"):
        load(spec(tmp_path))


def test_loose_files_need_a_task_column(tmp_path: Path) -> None:
    write(tmp_path / "x.parquet", [{k: v for k, v in r.items() if k != "task"} for r in ROWS])
    with pytest.raises(DataError, match="missing column task"):
        load(spec(tmp_path))


def test_rows_of_other_tasks_only_are_an_error(tmp_path: Path) -> None:
    task = spec(write(tmp_path / "x.parquet", ROWS), "longdep_qa")
    with pytest.raises(DataError, match=r"no row of longdep_qa in 1 file.*their task: shortdep_qa"):
        load(task)


def test_broken_files_are_named(tmp_path: Path) -> None:
    (tmp_path / "x.parquet").write_bytes(b"no parquet at all")
    with pytest.raises(DataError, match=r"x\.parquet: not a parquet file"):
        load(spec(tmp_path / "x.parquet"))
    (tmp_path / "x.jsonl").write_text(json.dumps(ROWS[0]) + "\n{broken\n", "utf-8")
    with pytest.raises(DataError, match=r"x\.jsonl:2: not JSON"):
        load(spec(tmp_path / "x.jsonl"))
    with pytest.raises(DataError, match=r"y\.jsonl:1: column context is 3 \(int\): must be text"):
        load(spec(write(tmp_path / "y.jsonl", [row(0, 0, context=3)])))


def test_too_few_contexts_are_an_error_with_counts(tmp_path: Path) -> None:
    rows = [r for r in ROWS if split_of(r["context"]) == "validate"]
    count = len({r["context"] for r in rows})
    task = spec(write(tmp_path / "x.jsonl", rows))
    message = (
        rf"too few contexts: 0 for search, at least 1 needed; there are {count} in all: 0 search, {count} validate"
    )
    with pytest.raises(DataError, match=message):
        load(task, "search")


def test_unknown_names_list_the_choices() -> None:
    with pytest.raises(ConfigError, match=r"task\.subset=shortdep: must be one of shortdep_qa, longdep_qa"):
        missing(spec(None, "shortdep"))
    with pytest.raises(ConfigError, match=r"task\.benchmark=logle: must be one of .*loogle.*did you mean loogle\?"):
        missing(spec(None, benchmark="logle"))


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", False)
    for name in ("HF_DATASETS_CACHE", "HF_DATASETS_OFFLINE", "SAHUB_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    return tmp_path / "home"


@pytest.mark.usefixtures("empty_cache")
def test_missing_data_are_told_at_once_with_the_command() -> None:
    start = time.perf_counter()
    with pytest.raises(MissingFiles) as error:
        load(spec(None))
    assert time.perf_counter() - start < 1
    text = str(error.value)
    assert text == missing(spec(None))
    assert "hf download --repo-type dataset simonjegou/loogle --include 'shortdep_qa/*' --local-dir DIR" in text
    assert "task.path=DIR" in text
    assert text.count("\n") == 3


@pytest.mark.usefixtures("empty_cache")
def test_a_host_that_does_not_answer_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAHUB_DOWNLOAD", "1")
    monkeypatch.setattr("huggingface_hub.constants.ENDPOINT", "http://127.0.0.1:9")
    assert missing(spec(None)) is None
    with pytest.raises(MissingFiles, match=r"SAHUB_DOWNLOAD is set, but http://127\.0\.0\.1:9"):
        load(spec(None))


VARIABLES = (
    ("HF_HOME", "{}/home", "home/hub"), ("HF_HUB_CACHE", "{}/a", "a"), ("HUGGINGFACE_HUB_CACHE", "{}/b", "b"),
    ("HF_HOME", "$OTHER/home", "home/hub"), ("XDG_CACHE_HOME", "{}/x", "x/huggingface/hub"),
)  # fmt: skip


@pytest.mark.parametrize(("variable", "value", "folder"), VARIABLES)
def test_the_hubs_own_variables_say_where_its_cache_is(variable: str, value: str, folder: str, tmp_path: Path) -> None:
    repository = tmp_path / folder / "datasets--simonjegou--loogle"
    write(repository / "snapshots" / "c0ffee" / "shortdep_qa" / "test-00000-of-00001.parquet", ROWS)
    code = (
        "from sahub.data.examples import TaskSpec; from sahub.data.loading import missing; print(missing(TaskSpec("
        "benchmark='loogle', subset='shortdep_qa', metric='bleu1', max_new_tokens=9, dataset='simonjegou/loogle', "
        "revision='c0ffee')))"
    )
    others = ("HF_HOME", "HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE")
    env = {name: held for name, held in environment().items() if name not in others}
    done = python("-c", code, cwd=tmp_path, env={**env, "OTHER": str(tmp_path), variable: value.format(tmp_path)})
    assert done.stdout == "None\n", done.stderr


def test_a_download_goes_through_the_proxy(tmp_path: Path) -> None:
    """Only the proxy can be reached: it is asked, and what it answers is told."""
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        answered = threading.Thread(target=refuse, args=(proxy,), daemon=True)
        answered.start()
        code = (
            "from sahub.data.examples import TaskSpec; from sahub.data.locate import read_rows\n"
            "task = TaskSpec(benchmark='loogle', subset='x', metric='bleu1', max_new_tokens=9, dataset='a/b')\n"
            "list(read_rows(task, ('c',)))"
        )
        at = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        env = {name: held for name, held in environment().items() if name.upper() not in ("HF_HUB_OFFLINE", "NO_PROXY")}
        more = {"SAHUB_DOWNLOAD": "1", "HTTP_PROXY": at, "HF_ENDPOINT": "http://hub.invalid", "HF_HOME": str(tmp_path)}
        done = python("-c", code, cwd=tmp_path, env={**env, "http_proxy": at, **more})
        assert "MissingFiles" in done.stderr
        assert "502" in done.stderr.splitlines()[-1]


def refuse(proxy: socket.socket) -> None:
    while True:
        asked, _ = proxy.accept()
        with asked:
            asked.recv(4096)
            asked.sendall(b"HTTP/1.1 502 Bad Gateway\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")


def test_a_wrong_path_is_named(tmp_path: Path) -> None:
    assert missing(spec(tmp_path / "nowhere")) == f"task.path={tmp_path / 'nowhere'}: no such folder or file"
    assert "no data of shortdep_qa" in str(missing(spec(tmp_path)))


def test_the_hub_cache_is_read(empty_cache: Path) -> None:
    repository = empty_cache / "hub" / "datasets--simonjegou--loogle"
    write(repository / "snapshots" / "c0ffee" / "shortdep_qa" / "test-00000-of-00001.parquet", ROWS)
    assert load(spec(None, revision="c0ffee"))
    assert missing(spec(None)) is not None
    (repository / "refs").mkdir()
    (repository / "refs" / "main").write_text("c0ffee", "utf-8")
    assert missing(spec(None)) is None
    assert load(spec(None)) == load(spec(None, revision="c0ffee"))


def test_the_datasets_cache_is_read(empty_cache: Path) -> None:
    folder = empty_cache / "datasets" / "simonjegou___loogle" / "shortdep_qa" / "0.0.0" / "c0ffee"
    folder.mkdir(parents=True)
    table = pa.Table.from_pylist(ROWS)
    with pa.ipc.new_stream(str(folder / "loogle-test.arrow"), table.schema) as stream:
        stream.write_table(table)
    assert missing(spec(None)) is None
    found = [e for split in ("search", "validate") for e in load(spec(None), split)]
    assert sum(len(e.questions) for e in found) == len(ROWS)
