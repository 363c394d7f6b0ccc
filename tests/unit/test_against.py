"""Builders compared with each other: only where the same was asked, and with intervals that know the pairs."""

from types import SimpleNamespace
from typing import Any

import pytest

from sahub.against import differences


def ran(builder: str, *scores: float | None, task: str = "t", start: int = 0, ended: bool = True) -> Any:
    """A cell whose validation scored so on the contexts start, start + 1, ..."""
    answers = [
        SimpleNamespace(example_id=f"{start + i}", question_id="0", score=score) for i, score in enumerate(scores)
    ]
    return SimpleNamespace(
        cell=SimpleNamespace(
            choices=SimpleNamespace(model="m", task=task, builder=builder, objective="o"),
            settings=SimpleNamespace(validate=SimpleNamespace(against=("plain",))),
        ),
        validation=SimpleNamespace(sparse=SimpleNamespace(answers=answers)) if ended else None,
        figures={"n": len(scores)} if ended else {},
    )


def test_differences_are_paired():
    # Alone the scores spread from 0 to 1; of each pair one is better by the same.
    one, plain = ran("one", 0.2, 0.5, 0.9, 1.0), ran("plain", 0.1, 0.4, 0.8, 0.9)
    found = differences(one, [plain, one])
    assert found["plain"]["mean"] == pytest.approx(0.1)
    assert found["plain"]["high"] - found["plain"]["low"] < 1e-9
    assert differences(plain, [plain, one]) == {}


@pytest.mark.parametrize(
    "other",
    [
        ran("plain", 1.0, 0.0, task="another"),
        ran("plain", 1.0, 0.0, start=7),
        ran("plain", 1.0),
        ran("plain", ended=False),
        ran("plain", None, None),
        ran("other", 1.0, 0.0),
    ],
    ids=["task", "contexts", "fewer", "failed", "without gold", "not asked for"],
)
def test_what_was_not_asked_the_same_is_not_compared(other):
    one = ran("one", 1.0, 0.5)
    assert differences(one, [one, other]) == {}


def test_answers_without_gold_are_left_out_on_both_sides():
    one, plain = ran("one", 1.0, None, 1.0), ran("plain", 0.0, None, 0.5)
    assert differences(one, [one, plain])["plain"]["mean"] == pytest.approx(0.75)
