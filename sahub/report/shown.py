"""What the page is made of: finished runs, their cells, and the tables that these may stand in."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sahub.report.run_files import CellFiles, RunFiles
from sahub.report.tables import ComparedRows, Row, tables


@dataclass(frozen=True)
class Shown:
    """Runs, and what is derived of them once for all sections."""

    runs: Sequence[RunFiles]

    @cached_property
    def tables(self) -> list[ComparedRows]:
        """The cells of all runs in as few tables as their protocols allow.

        `run` says whose a row is, of several; `apart` in what its table differs from the first.
        """
        found = tables([{**row, "run": run.name} for run in self.runs for row in run.summary["cells"]])
        return [replace(table, rows=[{**row, "apart": table.apart} for row in table.rows]) for table in found]

    @cached_property
    def cells(self) -> list[CellFiles]:
        """The cells in the order of the tables, each with its row there."""
        runs = {run.name: run for run in self.runs}
        return [CellFiles(runs[row["run"]], row) for table in self.tables for row in table.rows]

    @cached_property
    def colours(self) -> dict[str, int]:
        """A number for every builder: its colour in all pictures."""
        return {name: number for number, name in enumerate(dict.fromkeys(cell.row["builder"] for cell in self.cells))}

    def by(self, key: Callable[[Row], str]) -> Iterator[tuple[str, list[CellFiles]]]:
        """The cells in groups, in the order in which the first of each comes."""
        return grouped(self.cells, key)


def grouped(cells: Sequence[CellFiles], key: Callable[[Row], str]) -> Iterator[tuple[str, list[CellFiles]]]:
    """The same, of some cells."""
    groups: dict[str, list[CellFiles]] = {}
    for cell in cells:
        groups.setdefault(key(cell.row), []).append(cell)
    yield from groups.items()


def where(row: Row) -> str:
    """Model, task and length of a cell, and in what its protocol differs: what shares a picture."""
    tokens = (row["validation"] or {}).get("tokens")
    length = f"{tokens:,.0f} tokens" if tokens else ""
    return ", ".join(filter(None, (row["model"], row["task"], length, row["apart"])))


def who(row: Row) -> str:
    """Builder and objective of a cell, with its run where there are several."""
    return " ".join(filter(None, (row["builder"], row["objective"], row["run"])))
