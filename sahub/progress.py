"""What a long run shows of itself: a line per phase on a terminal, a line now and then in the log."""

import logging
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

log = logging.getLogger(__name__)
EVERY_S = 60.0  # between two lines in the log


class Display:
    """Phases of a run, each with its cells, the trial or context inside the present one, and the time that is left.

    On a terminal they are lines on standard error that leave nothing behind; elsewhere only the log has them.

    totals  cells of each phase
    """

    def __init__(self, totals: Mapping[str, int], unit: str = "cells", console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._bars = Progress(
            TextColumn("{task.description}"),
            TextColumn("{task.fields[cells]}"),
            BarColumn(20),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(elapsed_when_finished=False),
            TextColumn("{task.fields[inside]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
            speed_estimate_period=600.0,  # seconds; steps come in bursts, a generation at a time
        )
        self._unit, self._told = unit, time.monotonic()
        self._rows = {
            phase: self._bars.add_task(phase, total=total, start=False, cells=self._count(0, total), inside="")
            for phase, total in totals.items()
            if total
        }

    def __enter__(self) -> "Display":
        before = sys.stderr
        self._bars.start()  # on a terminal it has put itself in the place of standard error
        shown = [one for one in logging.getLogger().handlers if isinstance(one, logging.StreamHandler)]
        self._handlers = [one for one in shown if one.stream is before]
        self._redirect(sys.stderr)
        return self

    def __exit__(self, *details: object) -> None:
        self._bars.stop()
        self._redirect(sys.stderr)

    def _redirect(self, stream: TextIO) -> None:
        """Warnings go above the lines, not into them."""
        for handler in self._handlers:
            handler.setStream(stream)

    @contextmanager
    def steps(self, phase: str, what: str, unit: str = "", cells: int = 1) -> Iterator["Steps"]:
        """Work on `cells` cells of a phase: call what it gives once per step. At the end these cells are done."""
        row = self._rows[phase]
        self._bars.start_task(row)
        steps = Steps(self, phase, what, unit, cells, begin=self._bars.tasks[row].completed)
        self._show(steps)
        try:
            yield steps
        finally:
            steps.what, steps.total, steps.unit = "", None, ""
            steps.begin += cells
            self._show(steps)

    def skip(self, phase: str, cells: int) -> None:
        """Cells that will never come to this phase are no part of it."""
        if cells:
            row = self._rows[phase]
            task = self._bars.tasks[row]
            total = (task.total or 0) - cells
            self._bars.update(row, total=total, cells=self._count(task.completed, total))

    def _show(self, steps: "Steps") -> None:
        row = self._rows[steps.phase]
        task = self._bars.tasks[row]
        completed = steps.begin + steps.cells * steps.share
        cells, inside = self._count(steps.begin, task.total or 0), steps.inside
        self._bars.update(row, completed=completed, cells=cells, inside=inside)
        now = time.monotonic()
        if now - self._told >= EVERY_S:
            self._told, left = now, task.time_remaining
            rest = "" if left is None else f"; about {left:.0f} s left of this phase"
            log.info("%s: %s done, now %s%s", steps.phase, cells, inside, rest)

    def _count(self, done: float, total: float) -> str:
        return f"{done:.0f}/{total:.0f} {self._unit}"


@dataclass
class Steps:
    """The work on some cells of a phase; set `total` as soon as it is known."""

    display: Display
    phase: str
    what: str
    unit: str
    cells: int
    begin: float  # cells of the phase that were done before
    total: int | None = None
    done: int = 0

    def __call__(self) -> None:
        """One step more."""
        self.done += 1
        self.display._show(self)

    @property
    def share(self) -> float:
        """How much of these cells is done; never all, before their end."""
        return min(self.done / self.total, 0.99) if self.total else 0.0

    @property
    def inside(self) -> str:
        """The present cell and how far it is."""
        return f"{self.what} {self.done}/{self.total} {self.unit}".strip() if self.total else self.what
