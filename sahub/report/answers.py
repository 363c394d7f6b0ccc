"""The answer to the question that a run was made for: which builder, by how much, how sure, at what cost."""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sahub.report.plots import Band
from sahub.report.run_files import CellFiles
from sahub.report.tables import Row
from sahub.stats.intervals import TAIL, Interval, paired_interval, paired_p_value

ORACLE = "oracle_"  # methods that read every key to choose some: bounds, not something to use


@dataclass(frozen=True, kw_only=True)
class Rival:
    """Another builder, and what the best is ahead of it by, where it answered the same questions.

    surely  the best is better; with 97.5 % this holds of all rivals together, though the best was chosen among them
    """

    row: Row
    ahead: Interval | None
    surely: bool


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What is known of the builders of one task under one objective; `best` is None where none was validated."""

    cells: Sequence[CellFiles]
    best: CellFiles | None
    rivals: Sequence[Rival]
    bounds: Sequence[Row]

    @property
    def bytes_factor(self) -> float | None:
        """How many times fewer bytes a decode step of the best reads, its index included."""
        if self.best is None:
            return None
        dense = self.best.metrics("dense").get("measures", {}).get("bytes_per_step")
        sparse = self.best.row["validation"]["measures"].get("bytes_per_step")
        return dense / sparse if dense and sparse else None


@dataclass(frozen=True, kw_only=True)
class Overall:
    """Builders on all tasks of one objective: mean accuracies, the best first, oracles apart.

    words  verdict -> on how many tasks the best has it
    """

    tasks: int
    dense: float
    means: Sequence[tuple[str, float]]
    bounds: Sequence[tuple[str, float]]
    words: Mapping[str, int]
    trials: int
    seconds: float


def answer(cells: Sequence[CellFiles]) -> Answer:
    """Of cells that differ in their builder alone. The best is accurate, then cheap; it meets its targets."""
    scored = [cell for cell in cells if scores(cell.row)]
    usable = [cell for cell in scored_sparse(cells) if not is_bound(cell.row)]
    best = min((cell for cell in usable if cell.row["validation"].get("feasible", True)), key=_rank, default=None)
    others = [cell for cell in usable if cell is not best]
    rivals = [] if best is None else [_rival(best, cell, len(others)) for cell in others]
    bounds = [cell.row for cell in scored if is_bound(cell.row)]
    return Answer(cells=cells, best=best, rivals=rivals, bounds=bounds)


def overall(rows: Sequence[Row]) -> Overall | None:
    """Of rows of one model and objective; None unless there are several tasks, and a builder that has them all."""
    by_builder: dict[str, dict[str, Row]] = {}
    for row in rows:
        if scores(row):
            by_builder.setdefault(row["builder"], {})[row["task"]] = row
    tasks = {row["task"] for row in rows}
    whole = {name: list(found.values()) for name, found in by_builder.items() if found.keys() == tasks}
    if len(tasks) < 2 or not whole:
        return None
    means = {name: fmean(row["validation"]["sparse_score"]["mean"] for row in found) for name, found in whole.items()}
    ranked = sorted(means.items(), key=lambda pair: -pair[1])
    bound = {name for name, found in whole.items() if is_bound(found[0])}
    dense = fmean(row["validation"]["dense_score"]["mean"] for row in next(iter(whole.values())))
    kept = [pair for pair in ranked if pair[0] not in {*bound, "dense"}]
    return Overall(
        tasks=len(tasks),
        dense=dense,
        means=kept,
        bounds=[pair for pair in ranked if pair[0] in bound],
        words=Counter(row["verdict"]["word"] for row in whole[kept[0][0]]) if kept else {},
        trials=sum(sum((row["trials"] or {}).values()) for row in rows),
        seconds=sum(row["seconds"] for row in rows),
    )


def scores(row: Row) -> bool:
    """Whether a cell was validated on questions with gold answers."""
    return "sparse_score" in (row["validation"] or {})


def is_bound(row: Row) -> bool:
    """Whether a builder looks at every key to choose some."""
    return any(method.startswith(ORACLE) for method in row["methods"])


def scored_sparse(cells: Sequence[CellFiles]) -> list[CellFiles]:
    """Those with scores, bounds included, without the yardstick."""
    return [cell for cell in cells if scores(cell.row) and cell.row["builder"] != "dense"]


def named(name: str, row: Row) -> str:
    """A name for a picture: bounds are told from what can be used."""
    return f"{name} (oracle)" if is_bound(row) else name


def dense_band(row: Row) -> Band:
    """The accuracy of dense, in %, on the questions of a cell that has scores."""
    return Band(name="dense", **{key: 100 * row["validation"]["dense_score"][key] for key in Interval._fields})


def _rank(cell: CellFiles) -> tuple[Any, ...]:
    found = cell.row["validation"]
    measures = found["measures"]
    return -found["sparse_score"]["mean"], measures.get("answer_kl") or 0.0, measures["density"], cell.row["builder"]


def _rival(best: CellFiles, other: CellFiles, rivals: int) -> Rival:
    mine, theirs = best.scores("sparse"), other.scores("sparse")
    if not mine or mine.keys() != theirs.keys():
        return Rival(row=other.row, ahead=None, surely=False)
    one, two = list(mine.values()), [theirs[key] for key in mine]
    contexts = [key.rpartition("/")[0] for key in mine]
    surely = rivals * paired_p_value(one, two, contexts) < TAIL
    return Rival(row=other.row, ahead=paired_interval(one, two, contexts), surely=surely)
