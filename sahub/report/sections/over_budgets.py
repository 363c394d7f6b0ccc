"""Accuracy over budgets, where builders were tried at several: a panel per task, and averages by benchmark."""

from collections.abc import Iterator, Sequence
from statistics import fmean
from typing import Any, NamedTuple

from sahub.report.answers import dense_band, named, scored_sparse
from sahub.report.plots import Band, Marks, Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, grouped
from sahub.report.tables import Row
from sahub.stats.intervals import mean_interval

PLACE = 2
TITLE = "Accuracy over budgets"
LEAST = 3  # budgets of one builder, from which on this section has something to show
X, Y = "times fewer keys read", "accuracy, %"
ABOUT = "The winners at every budget, on questions that no search has seen, with 95 % intervals; band: dense."
OF_TASKS = f"A panel per task. {ABOUT}"
OF_BENCHMARKS = f"Averages over tasks by benchmark, of builders that have all of them. {ABOUT}"


class Mean(NamedTuple):
    """An accuracy, and the ends of its interval where there is one."""

    mean: float
    low: float | None
    high: float | None


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    found = [_table(name, cells) for name, cells in _benchmarks(shown)]
    return {"benchmarks": found} if found else None


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    averages = [_averages(shown, name, cells) for name, cells in _benchmarks(shown)]
    tasks = [
        Panel(title=name, x=X, y=Y, x_log=True, marks=list(_lines(shown, cells)), band=dense_band(cells[0].row))
        for _, every in _benchmarks(shown)
        for name, cells in grouped(every, lambda row: str(row["task"]))
    ]
    return [
        Plot(name="benchmarks_over_budgets", about=OF_BENCHMARKS, panels=averages),
        Plot(name="tasks_over_budgets", about=OF_TASKS, panels=tasks),
    ]


def _benchmarks(shown: Shown) -> Iterator[tuple[str, list[CellFiles]]]:
    """The cells of each model and benchmark, of builders that were validated at several budgets."""

    def benchmark(row: Row) -> str:
        return ", ".join(
            str(one) for one in (row["model"], row["task"].partition("/")[0], row["run"], row["apart"]) if one
        )

    for name, cells in shown.by(benchmark):
        kept = [
            cell
            for _, alike in grouped(scored_sparse(cells), _builder)
            if len({_budget(cell) for cell in alike}) >= LEAST
            for cell in alike
        ]
        if kept:
            yield name, kept


def _budget(cell: CellFiles) -> tuple[float, str]:
    """What orders the objectives, and their names."""
    return cell.row["target_density"] or 1.0, cell.row["objective"]


def _name(cells: Sequence[CellFiles]) -> str:
    return named(_builder(cells[0].row), cells[0].row)


def _lines(shown: Shown, cells: Sequence[CellFiles]) -> Iterator[Marks]:
    """The winners of each builder on one task, joined."""
    for builder, alike in grouped(cells, _builder):
        found = [cell.row["validation"] for cell in sorted(alike, key=_budget)]
        intervals = [Mean(**one["sparse_score"]) for one in found]
        about = [f"{_name(alike)}, {cell.row['objective']}" for cell in sorted(alike, key=_budget)]
        factors = [1 / one["measures"]["density"] for one in found]
        yield from _marks(_name(alike), factors, intervals, shown.colours[builder], about)


def _marks(
    name: str, factors: Sequence[float], found: Sequence[Mean], colour: int, about: Sequence[str]
) -> Iterator[Marks]:
    means = [100 * one.mean for one in found]
    yield Marks(name=name, x=factors, y=means, style="line", colour=colour)
    low = [None if one.low is None else 100 * one.low for one in found]
    high = [None if one.high is None else 100 * one.high for one in found]
    yield Marks(name=name, x=factors, y=means, low=low, high=high, colour=colour, about=about)


def _averages(shown: Shown, name: str, cells: Sequence[CellFiles]) -> Panel:
    """One benchmark: the mean over its tasks at every budget."""
    tasks = {cell.row["task"] for cell in cells}
    marks = []
    for builder, alike in grouped(cells, _builder):
        whole = [same for _, same in grouped(sorted(alike, key=_budget), _objective) if _tasks(same) == tasks]
        means = [_mean(same, "sparse") for same in whole]
        factors = [1 / fmean(cell.row["validation"]["measures"]["density"] for cell in same) for same in whole]
        about = [f"{_name(alike)}, {same[0].row['objective']}" for same in whole]
        marks += list(_marks(_name(alike), factors, means, shown.colours[builder], about)) if whole else []
    dense = _mean([next(cell for cell in cells if cell.row["task"] == task) for task in sorted(tasks)], "dense")
    low, high = (100 * (dense.mean if end is None else end) for end in dense[1:])
    band = Band(name="dense", mean=100 * dense.mean, low=low, high=high)
    title = f"{name}: mean over {len(tasks)} tasks" if len(tasks) > 1 else f"{name}: {min(tasks).partition('/')[2]}"
    return Panel(title=title, x=X, y=Y, x_log=True, marks=marks, band=band)


def _builder(row: Row) -> str:
    return str(row["builder"])


def _objective(row: Row) -> str:
    return str(row["objective"])


def _tasks(cells: Sequence[CellFiles]) -> set[str]:
    return {cell.row["task"] for cell in cells}


def _mean(cells: Sequence[CellFiles], which: str) -> Mean:
    """The mean over tasks; its interval is over all their contexts, where tasks have as many questions each."""
    scored = [cell.scores(which) for cell in cells]
    mean = fmean(cell.row["validation"][f"{which}_score"]["mean"] for cell in cells)
    if len({len(found) for found in scored}) > 1 or not scored[0]:
        return Mean(mean, None, None)
    values = [score for found in scored for score in found.values()]
    contexts = [key.rpartition("/")[0] for found in scored for key in found]
    return Mean(*mean_interval(values, contexts))


def _table(name: str, cells: Sequence[CellFiles]) -> dict[str, Any]:
    """A row per builder, the best first; a column per budget."""
    tasks, budgets = _tasks(cells), sorted({_budget(cell) for cell in cells})
    rows = []
    for _, alike in grouped(cells, _builder):
        by_budget = [[cell for cell in alike if _budget(cell) == budget] for budget in budgets]
        found = [_mean(same, "sparse") if _tasks(same) == tasks else None for same in by_budget]
        rows.append({"name": _name(alike), "found": found, "mean": fmean([one.mean for one in found if one] or [0.0])})
    return {
        "name": name,
        "tasks": len(tasks),
        "budgets": [objective for _, objective in budgets],
        "rows": sorted(rows, key=lambda row: -row["mean"]),
    }
