"""Rows and files of the shape that the data of every benchmark are documented to have."""

import json
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sahub.config.group_schemas import Task
from sahub.config.ranges import typed
from sahub.data.examples import SPLITS, Example, TaskSpec, split_of
from sahub.data.loading import load_examples

Row = dict[str, Any]
CONF = Path(__file__).parents[1] / "conf"
TREC = ["Person", "Place", "Reason for something"]


def spec(name: str, **changes: Any) -> TaskSpec:
    """The task of a file, checked against the schema; a whole cell is composed in a test of its own, as it is slow."""
    return replace(TaskSpec(**asdict(typed(Task, asdict(Task(**_values(name)))))), **changes)


@cache
def _values(name: str) -> dict[str, Any]:
    with initialize_config_dir(str(CONF), version_base=None):
        return cast(dict[str, Any], OmegaConf.to_container(compose(overrides=[f"+task={name}"]).task, resolve=True))


def load(task: TaskSpec, split: str = "validate", at_least: int = 1) -> list[Example]:
    def words(text: str) -> int:
        return len(text.split())

    return load_examples(task, split=split, limit=None, length=600, count_tokens=words, seed=0, at_least=at_least)


def everything(task: TaskSpec) -> list[Example]:
    """The examples of both splits."""
    return [example for split in SPLITS for example in load(task, split, 0)]


def filler(number: int) -> str:
    return f"Text number {number}. " + "Nothing else happened on that day. " * 4


def contexts(count: int = 3) -> list[str]:
    """So many texts of each of the two splits, mixed."""
    found: dict[str, list[str]] = {"search": [], "validate": []}
    number = 0
    while min(map(len, found.values())) < count:
        text = filler(number)
        if len(found[split_of(text)]) < count:
            found[split_of(text)].append(text)
        number += 1
    return [text for pair in zip(*found.values(), strict=True) for text in pair]


def prompt(context: str, task: str, **more: Any) -> Row:
    """A row of the mirrors: a ready prompt."""
    return {
        "context": context,
        "question": "\nWhat happened?",
        "answer_prefix": "Answer:",
        "task": task,
        "max_new_tokens": 999,
        **more,
    }


def ruler(subset: str, context: str) -> Row:
    return prompt(context, subset, answer=np.array(["4082716", "1111111"]))


def loogle(subset: str, context: str) -> Row:
    answer = json.dumps({"<mask-0>": "Ada", "<mask-1>": "Bo"}) if subset == "shortdep_cloze" else "Nothing happened."
    question = "\n" if subset == "longdep_summarization" else "What happened?"
    return prompt(context, subset, answer=answer, question=question)


def longbench(subset: str, context: str) -> Row:
    answer = {"trec": "Person", "lsht": "Person", "passage_count": "7", "passage_retrieval_en": "Paragraph 12"}
    answer["passage_retrieval_zh"] = "段落5"
    return prompt(
        context,
        subset,
        question="" if subset == "lcc" else "\nWhat?",
        answers=np.array([answer.get(subset, "nothing at all")]),
        all_classes=np.array(TREC) if subset in ("trec", "lsht") else None,
        length=len(context.split()) * 150,
        dataset=subset,
        language="zh" if subset.endswith("_zh") else "en",
        _id=f"{subset}-{context[:16]}",
    )


def longbench_v2(subset: str, context: str) -> Row:
    choices = {f"choice_{letter}": f"the {letter} thing" for letter in "ABCD"}
    lines = "\n".join(f"({key[-1]}) {text}" for key, text in choices.items())
    return prompt(
        context,
        subset,
        question=f"\nWhat is it?\n{lines}\n",
        answer="C",
        difficulty="easy",
        length="short",
        domain="books",
        sub_domain="tales",
        _id=context[:16],
        **choices,
    )


INFINITE = {
    "passkey": ["71432"],
    "number_string": ["2200012222"],
    "kv_retrieval": ["3f2b8c1e-77aa-4d10-9c55-0b9e6f1a2d34"],
    "longbook_choice_eng": ["B"],
    "code_debug": ["B"],
    "math_find": ["88"],
    "math_calc": ["79", "59", "73"],
    "code_run": ["-24"],
}


def infinite_bench(subset: str, context: str) -> Row:
    options = "\nA. one thing\nB. two things\nC. three things\nD. four things"
    question = f"Which?{options}" if subset in ("longbook_choice_eng", "code_debug") else "Which?"
    return prompt(context, subset, question=question, answer=np.array(INFINITE.get(subset, ["a mill", "the mill"])))


def zero_scrolls(subset: str, context: str) -> Row:
    query, answer = "\n\nQuestion:\nWhat happened?", {"quality": "B", "space_digest": "62%", "book_sum_sort": "2, 1, 3"}
    return {
        "id": f"{subset}-{context[:16]}",
        "pid": f"{subset}-{context[:16]}_0",
        "input": f"{context}{query}\n\nAnswer:\n",
        "output": answer.get(subset, "Nothing happened."),
        "document_start_index": 5,
        "document_end_index": len(context),
        "query_start_index": len(context) + 2,
        "query_end_index": len(context) + len(query),
        "truncation_seperator": "... [cut]",
    }


ROWS: dict[str, Callable[[str, str], Row]] = {
    "ruler": ruler,
    "loogle": loogle,
    "longbench": longbench,
    "longbench_e": longbench,
    "longbench_v2": longbench_v2,
    "infinite_bench": infinite_bench,
    "zero_scrolls": zero_scrolls,
}
FOLDERS = {"longbench_e": "{}_e"}  # where it is not the subset's name


def rows_of(name: str, count: int = 3) -> list[Row]:
    """Rows of a task, `count` contexts of each split."""
    benchmark, _, subset = name.partition("/")
    return [ROWS[benchmark](subset, context) for context in contexts(count)]


def fixture(name: str, folder: Path, suffix: str = "parquet") -> Path:
    """The folder of a task as `hf download --local-dir` makes it."""
    benchmark, _, subset = name.partition("/")
    if benchmark == "zero_scrolls":
        write_zip(folder / f"{subset}.zip", {f"{subset}/validation.jsonl": rows_of(name), f"{subset}/test.jsonl": []})
    else:
        write(folder / FOLDERS.get(benchmark, "{}").format(subset) / f"test-00000-of-00001.{suffix}", rows_of(name))
    return folder


def write(file: Path, rows: Sequence[Row]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    if file.suffix == ".parquet":
        pa.parquet.write_table(pa.Table.from_pylist(list(rows)), file)
    elif file.suffix == ".jsonl":
        file.write_text(lines(rows), "utf-8")
    else:
        file.write_text(json.dumps(list(rows), indent=1, default=_plain), "utf-8")
    return file


def write_zip(file: Path, members: dict[str, Sequence[Row]]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, rows in members.items():
            archive.writestr(name, lines(rows))
    return file


def lines(rows: Sequence[Row]) -> str:
    return "".join(json.dumps(row, default=_plain) + "\n" for row in rows)


def _plain(value: Any) -> Any:
    return value.tolist()
