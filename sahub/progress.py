"""What a long run shows of itself: cells done, and the step inside the present one."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn


class Display:
    """Progress bars on standard error that leave nothing behind."""

    def __init__(self, total: int, what: str = "cells") -> None:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self._bars = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
        self._cells = self._bars.add_task(what, total=total)

    def __enter__(self) -> "Display":
        self._bars.start()
        return self

    def __exit__(self, *details: object) -> None:
        self._bars.stop()

    @contextmanager
    def steps(self, what: str, total: int | None, cells: int = 1) -> Iterator[Callable[[], None]]:
        """A bar of `total` steps (None: unknown); the function it gives counts one. Ends `cells` cells' phases."""
        bar = self._bars.add_task(what, total=total)
        try:
            yield lambda: self._bars.advance(bar)
        finally:
            self._bars.remove_task(bar)
            self._bars.advance(self._cells, cells)
