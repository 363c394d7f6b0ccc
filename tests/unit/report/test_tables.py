"""Which cells share a table, and verdicts that hold in all of it."""

from math import sqrt
from random import Random
from typing import Any

import pytest

from sahub.report.tables import tables
from sahub.stats.intervals import TAIL, paired

PROTOCOL = {"protocol.template": "auto", "model.dtype": "auto", "task.metric": None, "search.seed": 0}


def row(
    gains: int = 0, losses: int = 0, n: int = 80, *, builder: str = "quest", task: str = "t", **changed: Any
) -> Any:
    """A cell as the summary has it, of n contexts with a question each."""
    same = n - gains - losses
    found = paired([1] * (gains + same) + [0] * losses, [0] * gains + [1] * (losses + same), None)
    validation = {
        "paired": {name: column.tolist() for name, column in found._asdict().items()},
        "verdict": {"margin": 0.05},
    }
    protocol = PROTOCOL | {key.replace("_", ".", 1): value for key, value in changed.items()}
    return {"model": "m", "task": task, "builder": builder, "protocol": protocol, "validation": validation}


def words(*rows: Any) -> list[list[str | None]]:
    return [[one["verdict"] and one["verdict"]["word"] for one in table.rows] for table in tables(rows)]


def test_verdicts_are_those_of_the_table() -> None:
    assert words(row()) == [["lossless"]]
    assert words(row(), row(builder="other")) == [["undecided", "undecided"]]
    assert words(row(), row(builder="dense")) == [["lossless", None]]  # dense is the yardstick, and no question
    assert words(row(), {**row(), "validation": None}, row(protocol_template="raw")) == [
        ["lossless", None],
        ["lossless"],
    ]


@pytest.mark.parametrize(
    ("other", "differs"),
    [
        (row(protocol_template="raw"), {"protocol.template": "raw"}),
        (row(model_dtype="float16"), {"model.dtype": "float16"}),
        (row(task_metric="f1", search_seed=1), {"task.metric": "f1", "search.seed": 1}),
        (row(task="u", task_metric="f1"), None),
        ({**row(model_dtype="float16"), "model": "another"}, None),
    ],
)
def test_different_protocols_are_different_tables(other: Any, differs: Any) -> None:
    found = tables([row(), other, row(builder="third")])
    assert [len(table.rows) for table in found] == ([3] if differs is None else [2, 1])
    assert differs is None or found[1].differs == differs
    assert found[0].differs == {}


def test_few_tables_hold_a_wrong_lossless_on_the_whole_way(monkeypatch: Any) -> None:
    monkeypatch.setattr("sahub.stats.verdict.REPETITIONS", 1)  # how many contexts are lacking is not asked here
    # From answers to the table: three builders that lose the margin, several questions a context.
    chance, many, wrong = Random(3), 150, 0
    for _ in range(many):
        cells = []
        for name in "abc":
            losses = [min(2, sum(chance.random() < 0.05 for _ in range(2))) for _ in range(60)]
            sparse = [score for lost in losses for score in [0.0] * lost + [1.0] * (2 - lost)]
            found = paired(sparse, [1.0] * 120, [context for context in range(60) for _ in range(2)])
            one = row(builder=name)
            one["validation"]["paired"] = {key: column.tolist() for key, column in found._asdict().items()}
            cells.append(one)
        wrong += "lossless" in words(*cells)[0]
    assert wrong / many <= TAIL + 3 * sqrt(TAIL * (1 - TAIL) / many)
