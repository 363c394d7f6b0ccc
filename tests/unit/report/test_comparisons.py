"""Builders compared with each other: only where the same was asked, and with intervals that know the pairs."""

from types import SimpleNamespace
from typing import Any

import pytest

from sahub.config.group_schemas import Builder, Task
from sahub.config.settings import Settings, Validate
from sahub.report.comparisons import differences
from sahub.stats.intervals import mean_interval


def ran(builder: str, *scores: float | None, task: str = "t", start: int = 0, ended: bool = True, **validate) -> Any:
    """A cell whose validation scored so on the contexts start, start + 1, ..."""
    answers = [
        SimpleNamespace(example_id=f"{start + i}", question_id="0", score=score) for i, score in enumerate(scores)
    ]
    settings = Settings(
        task=Task(benchmark="b", subset=task),
        builder=Builder(stages={builder: {}}),
        validate=Validate(compare_with=("plain",), **validate),
    )
    return SimpleNamespace(
        cell=SimpleNamespace(choices=SimpleNamespace(builder=builder), settings=settings),
        validation=SimpleNamespace(sparse=SimpleNamespace(answers=answers)) if ended else None,
        figures={"n": len(scores)} if ended else {},
    )


def test_differences_are_paired():
    # Alone the scores spread from 0 to 1; of each pair one is better by the same.
    better = [0.2, 0.5, 0.9, 1.0] * 30
    one, plain = ran("one", *better), ran("plain", *[score - 0.1 for score in better])
    found = differences(one, [plain, one])
    assert found["plain"]["mean"] == pytest.approx(0.1)
    alone = mean_interval(better)
    assert found["plain"]["high"] - found["plain"]["low"] < 0.75 * (alone.high - alone.low)
    assert differences(plain, [plain, one]) == {}


@pytest.mark.parametrize(
    "other",
    [
        ran("plain", 1.0, 0.0, task="another"),
        ran("plain", 1.0, 0.0, start=7),
        ran("plain", 1.0, 0.0, max_new_tokens=2),
        ran("plain", 1.0),
        ran("plain", ended=False),
        ran("plain", None, None),
        ran("other", 1.0, 0.0),
    ],
    ids=["task", "contexts", "settings", "fewer", "failed", "without gold", "not asked for"],
)
def test_what_was_not_asked_the_same_is_not_compared(other):
    one = ran("one", 1.0, 0.5)
    assert differences(one, [one, other]) == {}


def test_of_cells_of_the_same_builder_each_has_its_own_partner():
    cells = [ran(name, *scores, max_new_tokens=n) for n, name, *scores in [
        (2, "plain", 0.0, 0.0), (32, "plain", 0.0, 1.0), (32, "one", 1.0, 1.0), (2, "one", 0.0, 1.0),
    ]]  # fmt: skip
    assert [differences(cell, cells).get("plain", {}).get("mean") for cell in cells] == [None, None, 0.5, 0.5]


def test_answers_without_gold_are_left_out_on_both_sides():
    one, plain = ran("one", 1.0, None, 1.0), ran("plain", 0.0, None, 0.5)
    assert differences(one, [one, plain])["plain"]["mean"] == pytest.approx(0.75)
