"""Every file in conf/task says what its place says, names a metric that exists, and loads data of its schema."""

import runpy
import shutil
from dataclasses import fields
from pathlib import Path

import pytest
from task_rows import CONF, everything, filler, fixture, load, rows_of, spec, write

from sahub import scores
from sahub.config.cell import compose_cell
from sahub.config.group_schemas import Task
from sahub.data.examples import TaskSpec
from sahub.data.loading import missing
from sahub.models.weights import spec_of
from sahub.scores import metrics_of

ROOT = Path(__file__).parents[3]
FOLDER = CONF / "task"
NAMES = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))
COUNTS = {
    "infinite_bench": 12, "longbench": 21, "longbench_e": 13, "longbench_v2": 1, "loogle": 4, "ruler": 13,
    "zero_scrolls": 10,
}  # fmt: skip


@pytest.fixture(autouse=True)
def _empty_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "home" / "hub"))
    for name in ("HF_DATASETS_CACHE", "SAHUB_DOWNLOAD"):
        monkeypatch.delenv(name, raising=False)


def test_every_subset_has_a_file() -> None:
    counts = {benchmark: sum(name.startswith(f"{benchmark}/") for name in NAMES) for benchmark in COUNTS}
    assert counts == COUNTS
    assert sum(counts.values()) == len(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_task_file_is_a_task_and_loads_its_data(name: str, tmp_path: Path) -> None:
    task = spec(name)
    assert task.name == name
    assert task.metric in metrics_of(name)
    assert task.licence
    told = missing(task)
    assert (told is None) == (task.dataset is None and "file" not in task.options)
    assert told is None or (len(told.splitlines()) <= 4 and task.subset in told)

    stored = spec(name, path=str(fixture(name, tmp_path / "data")))
    assert missing(stored) is None
    examples = everything(stored)
    assert len(examples) == len(rows_of(name))
    for example in examples:
        [question] = example.questions
        assert example.context
        assert question.max_new_tokens == task.max_new_tokens  # the row's own 999 is no official number
        assert question.references
        assert all(type(text) is str for text in question.references)
        classes = question.metadata.get("all_classes")
        found = scores.score(name, "nothing", question.references, classes=classes, metric=task.metric)
        assert 0 <= found <= 1


def test_writing_the_files_again_changes_nothing(tmp_path: Path) -> None:
    pages = ROOT / "docs" / "benchmarks"
    shutil.copytree(pages, tmp_path / "pages")
    runpy.run_path(str(ROOT / "docs" / "make_tasks.py"))["write"](tmp_path / "task", tmp_path / "pages")
    assert texts(tmp_path / "task") == texts(FOLDER)
    assert texts(tmp_path / "pages") == texts(pages)


def texts(folder: Path) -> dict[Path, str]:
    return {file.relative_to(folder): file.read_text("utf-8") for file in folder.rglob("*.*")}


def test_every_task_is_on_its_page() -> None:
    told = "".join(texts(ROOT / "docs" / "benchmarks").values())
    assert [name for name in NAMES if f"| `{name}` |" not in told] == []


def test_a_cell_has_its_tasks_keys(tmp_path: Path) -> None:
    cell = compose_cell(["task=longbench_e/qasper", "task.revision=main", f"task.path={tmp_path}"])
    assert spec_of(cell) == spec("longbench_e/qasper", revision="main", path=str(tmp_path))
    assert {one.name for one in fields(TaskSpec)} == {one.name for one in fields(Task)}


def test_all_layouts_of_a_list_column_are_texts(tmp_path: Path) -> None:
    for suffix in ("parquet", "jsonl", "json"):
        file = write(tmp_path / suffix / f"trec.{suffix}", rows_of("longbench/trec"))
        [first, *_] = load(spec("longbench/trec", path=str(file)))
        assert first.questions[0].references == ("Person",)
        assert first.questions[0].metadata["all_classes"] == ["Person", "Place", "Reason for something"]
        assert first.questions[0].metadata["length"] == 150 * len(first.context.split())


FINE = [
    "Food", "Date", "Order, rank", "Speed", "Disease and medicine", "Word with a special property", "Abbreviation",
    "Language", "Letter like a-z", "Other entity", "Animal", "Expression abbreviated", "Price", "Techniques and method",
    "Musical instrument", "Mountain", "Currency name", "Event", "Product", "State", "Individual", "Organ of body",
    "Reason", "Manner of an action", "City", "Religion", "Invention, book and other creative piece",
    "Distance, linear measure", "Temperature", "Postcode or other code", "Size, area and volume", "Sport", "Country",
    "Other location", "Lasting time of somethin", "Equivalent term", "Description of something", "Weight", "Vehicle",
    "Color", "Other number", "Definition of something", "Element and substance", "Description of a person",
    "Symbols and sign", "Number of something", "Plant", "Percent, fraction", "Group or organization of persons",
    "Title of a person",
]  # fmt: skip
NEWS = [
    "农业、农村", "军事", "文学、艺术", "体育", "传媒业", "电子信息产业", "文化、休闲娱乐", "社会、劳动", "经济",
    "服务业、旅游业", "环境、气象", "能源、水务、水利", "财政、金融", "教育", "科学技术", "对外关系、国际关系",
    "矿业、工业", "政治", "交通运输、邮政、物流", "灾难、事故", "基本建设、建筑业、房地产", "医药、卫生",
    "法律、司法", "商业、外贸、海关",
]  # fmt: skip


@pytest.mark.parametrize(("subset", "labels"), [("trec", FINE), ("lsht", NEWS)])
@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_labels_of_whole_files_are_scored_as_their_authors_do(
    subset: str, labels: list[str], suffix: str, tmp_path: Path
) -> None:
    begin = rows_of(f"longbench/{subset}")[0]
    rows = [begin | {"_id": gold, "context": filler(number), "answers": [gold], "all_classes": labels}
            for number, gold in enumerate(labels)]  # fmt: skip
    found = everything(spec(f"longbench/{subset}", path=str(write(tmp_path / f"{subset}.{suffix}", rows))))
    questions = [question for example in found for question in example.questions]
    assert {question.references for question in questions} == {(gold,) for gold in labels}
    for number, question in enumerate(questions):
        [gold], other = question.references, labels[number]
        for answer in (
            gold,
            f"\n{gold}\nType: {other}",
            f"{other} or {gold}",
            other,
            " ".join(labels),
            gold.upper(),
            "",
        ):
            assert scores.score(
                f"longbench/{subset}", answer, question.references, classes=question.metadata["all_classes"]
            ) == by_its_authors(answer.lstrip("\n").split("\n")[0], gold, labels), (answer, gold)


def by_its_authors(answer: str, gold: str, labels: list[str]) -> float:
    """1 / labels that the answer names, those inside the gold one aside, where that is among them."""
    named = [label for label in labels if label in answer]
    for label in named:
        if label in gold and label != gold:
            named.remove(label)
    return 1 / len(named) if gold in named else 0.0
