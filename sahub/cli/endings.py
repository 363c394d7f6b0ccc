"""What is done with planned cells by the commands that run none: doctor, bench, best."""

import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from sahub.errors import SahubError

if TYPE_CHECKING:
    from sahub.config.cell import Cell


@dataclass
class Run:
    """What planning leaves: cells, what is wrong with others, and the directory of the run."""

    cells: list["Cell"] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    directory: Path | None = None


def say(*messages: str) -> None:
    """Lines on standard error."""
    sys.stderr.write("".join(f"{message.rstrip()}\n" for message in messages))


def examine_cells(planned: Run) -> int:
    """Examine the task or the model of every cell; exit status 0 when each can be used."""
    from sahub.doctor import examine  # light: `--help` and a wrong name do not pay for it

    usable = not planned.problems
    say(*dict.fromkeys(planned.problems))
    for cell in planned.cells:
        try:
            usable = examine(cell) and usable
        except SahubError as error:
            say(str(error))
            usable = False
    return 0 if usable else 1


def bench_cells(planned: Run) -> int:
    """Measure a decoding step of every cell's builder; exit status 0 when all could be."""
    from sahub.bench import bench  # light: `--help` and a wrong name do not pay for it

    say(*dict.fromkeys(planned.problems))
    if planned.cells:
        assert planned.directory is not None
        bench(planned.cells, planned.directory)
    return 1 if planned.problems else 0


def look_up_cells(planned: Run) -> int:
    """Print the best that is known of every cell; exit status 0 when all could be looked up."""
    from sahub.results.lookup import show  # light: `--help` and a wrong name do not pay for it

    say(*dict.fromkeys(planned.problems))
    if planned.cells:
        show(planned.cells)
    return 1 if planned.problems else 0


ENDINGS: dict[str, Callable[[Run], int]] = {"doctor": examine_cells, "bench": bench_cells, "best": look_up_cells}
