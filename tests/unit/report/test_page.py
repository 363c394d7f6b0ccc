"""The page of finished runs: what it answers, what it holds, and what it refuses."""

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from run_folder import write_run

from sahub.cli.commands import diff, report
from sahub.errors import DataError, MissingFiles, NewerFormat
from sahub.extensions import members
from sahub.report.page import write_page
from sahub.report.run_files import FILE, read_runs
from sahub.report.tables import tables

MB = 1 << 20


class Reader(HTMLParser):
    """The text of a page, its sections, and the elements that are open."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sections: list[str] = []
        self.loaded: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        if tag == "section":
            self.sections.append(found["id"])
        self.loaded += [
            value for name, value in attrs if name in {"src", "href"} and not value.startswith(("#", "data:"))
        ]
        if tag not in {"meta", "link", "input", "br", "img"}:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag, tag

    def handle_data(self, data):
        if not {"script", "style"} & {*self.open}:
            self.words.append(data)


def page_of(*folders: Path, file: Path) -> tuple[Reader, str]:
    write_page(read_runs(folders), file, every_picture=False)
    reader = Reader()
    reader.feed(file.read_text("utf-8"))
    assert reader.open == []
    return reader, " ".join(" ".join(reader.words).split())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), right={"quest": 1.0, "streaming_llm": 0.1, "oracle_topk": 1.0})


def test_the_first_words_answer_the_question(run: Path, tmp_path: Path) -> None:
    reader, text = page_of(run, file=tmp_path / "page.html")
    assert {*reader.sections} == {*members("report/sections")} - {"failed_cells", "frontier", "over_budgets"}
    assert reader.sections[:2] == ["answer", "table"]
    assert reader.loaded == []  # the file needs nothing else
    answer = text[text.index("The answer Within") :]
    for words in (
        "Within 10 % of the keys of m , over 2 tasks: quest answers 100.0 % right on average, where dense attention",
        "quest is surely the best of 2 builders: it answers 100.0 % right, dense 100.0 %: +0.0 points (95 % interval",
        "Undecided : a loss of 5 points is neither shown nor ruled out; about",
        "It reads 10.0 times fewer keys and 5.0 times fewer bytes a step",
        "Upper bound: oracle_topk, which looks at every key to choose, 100.0 %.",
        "Cost: 16 trials, 3 s, all of it from the cache.",
    ):
        assert words in answer
    assert "what it asks for lies 25 % into the context" in text
    assert "The gold answer stands at tokens 200 to 202. Dense attention to it that was dropped" in text
    assert "of all that a head has: layer 2 head 0 (97 %), of 4 heads." in text
    assert "What is <b>number</b>" in text  # what models and files say is text, and never markup
    with (tmp_path / "plots" / "trials.csv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 16
    assert {"panel", "name", "density: share of keys attended to", "answer_kl", "about"} <= rows[0].keys()
    with (tmp_path / "plots" / "gold_spans.csv").open(encoding="utf-8") as file:
        lost = {(row["layer"], row["head"]): row["value"] for row in csv.DictReader(file)}
    assert lost == {("0", "0"): "0.01", ("0", "1"): "0.0", ("1", "0"): "", ("1", "1"): ""} | {
        ("2", "0"): "0.97", ("2", "1"): "0.0"
    }  # fmt: skip
    assert (tmp_path / "plots" / "accuracy.png").read_bytes().startswith(b"\x89PNG")


def test_runs_of_different_protocols_are_refused_one_table(run: Path, tmp_path: Path) -> None:
    other = write_run(tmp_path / "other", builders=("quest",), right={"quest": 0.5}, template="none")
    again = write_run(tmp_path / "again", builders=("quest",), right={"quest": 1.0})
    _, text = page_of(run, other, again, file=tmp_path / "page.html")
    assert "2 protocols" in text
    assert "Table 2, in which protocol.template=none" in text
    found = read_runs([run, other, again])
    rows = [{**row, "run": one.name} for one in found for row in one.summary["cells"]]
    assert [len(table.rows) for table in tables(rows)] == [8, 2]


def test_diff_names_every_key_and_what_moved(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = write_run(tmp_path / "other", tasks=1, builders=("quest",), right={"quest": 0.0}, template="none")
    assert diff.main([f"a={run}", f"b={other}"]) == 0
    said = capsys.readouterr().out
    assert re.search(r"in every cell:\n +protocol.template +auto -> none\n\n", said)
    assert "sparse     100.0 [91,100] -> 0.0 [0,9], -100.0 [-100,-82] points, paired over 40 questions" in said
    assert said.count("only in a: ") == 5
    assert diff.main([f"a={run}", f"b={run}"]) == 0
    assert "no key differs in every cell" in capsys.readouterr().out


def test_what_is_no_run_is_named(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(MissingFiles, match="must be the directory of a finished run"):
        read_runs([tmp_path])
    content = json.loads((run / FILE).read_text("utf-8"))
    for change, error in (
        ({"format": 99}, NewerFormat),
        ({"format": 1}, DataError),
        ({"cells": []}, DataError),
        ({"cells": [{"ok": 1}]}, DataError),
        ({"seconds": "x"}, DataError),
    ):
        (tmp_path / FILE).write_text(json.dumps(content | change), "utf-8")
        with pytest.raises(error, match=FILE):
            read_runs([tmp_path])
    assert report.main([f"runs={tmp_path}"]) == 1
    assert report.main([]) == report.main([f"runs={run}", "outptu=x"]) == diff.main(["a=x"]) == 2
    assert report.main([f"runs={run}", f"output={tmp_path / 'page.txt'}"]) == 1
    said = capsys.readouterr().err
    assert "outptu=x: no such key" in said
    assert "must be a file NAME.html" in said
    assert "Traceback" not in said


def test_cells_without_results_are_shown_too(tmp_path: Path) -> None:
    run = write_run(tmp_path, tasks=1, builders=("quest", "streaming_llm"))
    content = json.loads((run / FILE).read_text("utf-8"))
    bare = dict.fromkeys(("validation", "best", "trials", "calibration", "decision", "importances"))
    content["cells"][1] |= {**bare, "ok": False, "message": "out of <memory>", "directory": "gone"}
    content["cells"][0] |= {"validation": None}
    (run / FILE).write_text(json.dumps(content), "utf-8")
    _, text = page_of(run, file=tmp_path / "page.html")
    assert "streaming_llm, sparsity_10 : out of <memory>" in text
    assert "Searched, but not validated" in text


def test_the_winners_of_a_frontier_are_told_for_every_budget(tmp_path: Path) -> None:
    run = write_run(tmp_path, tasks=1, builders=("quest",))
    content = json.loads((run / FILE).read_text("utf-8"))
    assert "Every budget" not in page_of(run, file=tmp_path / "one.html")[1]
    won = {"overrides": ["builder.stages.quest.page_size=8"], "value": 0.25, "density": 0.05, "aux_bits": 32.0}
    checked = [{"value": 0.5}, None]
    content["cells"][0]["frontier"] = [
        {**won, "budget": name, "checked": one}
        for name, one in zip(("density_0.05", "aux_bits_32"), checked, strict=True)
    ]
    (run / FILE).write_text(json.dumps(content), "utf-8")
    _, text = page_of(run, file=tmp_path / "page.html")
    for told in ("Every budget", "density_0.05", "aux_bits_32", "page_size=8"):
        assert told in text


def test_several_budgets_give_averages_and_a_panel_for_every_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sahub.report.page.png", lambda plot: b"")  # which takes longer than all else
    run = write_run(tmp_path, right={"quest": 1.0, "streaming_llm": 0.0}, budgets=(2, 5, 10))
    _, text = page_of(run, file=tmp_path / "page.html")
    table = text[text.index("m, ruler: accuracy in %, mean over 2 tasks") :]
    assert "builder sparsity_2 sparsity_5 sparsity_10 quest 100.0 [91,100] 100.0 [91,100] 100.0 [91,100]" in table
    assert "streaming_llm 0.0 [0,9]" in table  # the tasks share their contexts: 40 of them, not 80
    assert table.index("quest") < table.index("oracle_topk (oracle)") < table.index("streaming_llm")
    with (tmp_path / "plots" / "tasks_over_budgets.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["low"]]
    assert {row["panel"] for row in rows} == {"ruler/task_0", "ruler/task_1"}
    assert {float(row["times fewer keys read"]) for row in rows} == {50, 20, 10}
    assert len(rows) == 2 * 3 * 3


def test_a_page_is_light(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sahub.report.page.png", lambda plot: b"")  # which takes longer than all else
    run = write_run(tmp_path, tasks=8, trials=50, questions=30)
    page_of(run, file=tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 6 * MB


@pytest.mark.slow
def test_a_page_of_200_cells_is_light(tmp_path: Path) -> None:
    run = write_run(tmp_path, tasks=67, trials=50, questions=100)
    page_of(run, file=tmp_path / "page.html")
    assert (tmp_path / "page.html").stat().st_size < 12 * MB
