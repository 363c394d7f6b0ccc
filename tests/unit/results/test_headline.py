"""What a run says of its answers by the benchmarks' own rules."""

from types import SimpleNamespace
from typing import Any

import pytest

from sahub.errors import ConfigError
from sahub.results.headline import benchmarks, headline_lines, official
from sahub.scores import check_metric


def cell(subset: str, metric: str | None = None, benchmark: str = "longbench_e") -> Any:
    task = SimpleNamespace(benchmark=benchmark, subset=subset, metric=metric, length=None)
    choices = SimpleNamespace(model="m", builder="b", objective="o")
    settings = SimpleNamespace(task=task, validate=SimpleNamespace(max_context_length=64))
    return SimpleNamespace(choices=choices, settings=settings)


def outcome(*answers: tuple[str, str, float | None, int]) -> Any:
    rows = [
        SimpleNamespace(answer=answer, references=(gold,), score=score, metadata={"length": length})
        for answer, gold, score, length in answers
    ]
    return SimpleNamespace(answers=rows)


def test_answers_without_gold_are_left_out_and_empty_groups_are_null() -> None:
    found = official(cell("qasper"), outcome(("x", "x", 1.0, 10), ("y", "x", 0.0, 20), ("y", "", None, 9000)))
    assert found == {"0-4k": 50.0, "4-8k": None, "8k+": None}


def test_a_metric_that_was_asked_for_is_the_one_that_is_reported() -> None:
    answers = outcome((" \nx", "x", 1.0, 1))
    assert official(cell("triviaqa", "kvpress", "longbench"), answers) == {"kvpress": 100.0}
    assert official(cell("triviaqa", "f1", "longbench"), answers) == {"f1": 0.0}


def test_cells_of_one_benchmark_make_one_number() -> None:
    results: Any = [
        (cell("qasper"), {"official": {"dense": {"0-4k": 40.0, "4-8k": None, "8k+": None}}}),
        (cell("trec"), {"official": {"dense": {"0-4k": 60.0, "4-8k": 20.0, "8k+": None}}}),
        (cell("lcc"), {}),
    ]
    [found] = benchmarks(results)
    assert (found["model"], found["benchmark"], found["length"]) == ("m", "longbench_e", 64)
    assert found["dense"]["value"] == 35.0
    assert found["dense"]["columns"]["0-4k"] == 50.0
    assert found["dense"]["columns"]["8k+"] is None
    assert "lcc" in found["dense"]["missing"]


def test_a_line_says_the_one_number_of_several_tasks() -> None:
    def ran(subset: str, dense: float | None, sparse: float, benchmark: str = "ruler", **figures: Any) -> Any:
        official = {"dense": {"m": dense}, "sparse": {"m": sparse}}
        return (cell(subset, None, benchmark), {"official": official})

    one: Any = [ran("vt", 90.0, 81.25)]
    assert headline_lines(one) == headline_lines([ran("trec", 1.0, 2.0, "longbench")]) == []  # they are in the table
    buckets: Any = [(cell("trec"), {"official": {"dense": {"0-4k": 60.0, "4-8k": 20.0}}})]
    assert headline_lines(buckets) == [
        "longbench_e: dense 40 (mean over the buckets of the mean over tasks; 12 of its tasks were not run)"
    ]
    two: Any = [*one, ran("cwe", 50.0, 20.0), (cell("fwe", None, "ruler"), {})]
    assert headline_lines(two) == ["ruler: dense 70, b o 50.62 (mean over tasks; 11 of its tasks were not run)"]
    longer = ran("vt", None, 1.0), ran("cwe", None, 2.0)
    for one_cell, _ in longer:
        one_cell.settings.task.length = 128
    assert [line.partition(" (")[0] for line in headline_lines([*two, *longer])] == [
        "ruler, 64: dense 70, b o 50.62",
        "ruler, 128: dense -, b o 1.5",
    ]
    others = ran("vt", 90.0, 60.0), ran("cwe", 50.0, 40.0)
    for one_cell, _ in others:
        one_cell.choices.builder = "c"
    [line] = headline_lines([*two, *others])
    assert line.startswith("ruler: dense 70, b o 50.62, c o 50 (")


def test_a_metric_is_known_before_any_work() -> None:
    check_metric("ruler/vt", "kvpress")
    with pytest.raises(ConfigError, match="metric=kvpress: kvpress does not score zero_scrolls/quality"):
        check_metric("zero_scrolls/quality", "kvpress")
