"""Pictures as data: what is drawn on the page, as a PNG, and written as a CSV."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

Style = Literal["dot", "ring", "star", "faint", "line", "bar"]
GREY = -1  # in place of a number of the palette


@dataclass(frozen=True, kw_only=True)
class Marks:
    """Points of one name.

    low, high  ends of the interval of y, None where there is none
    colour     number in the palette; those of one builder have the same
    about      on hover; a text for every point, or none
    paste      a command line for every point, or none: shown when the point is clicked
    """

    name: str
    x: Sequence[float | str]
    y: Sequence[float]
    low: Sequence[float | None] = ()
    high: Sequence[float | None] = ()
    style: Style = "dot"
    colour: int = 0
    about: Sequence[str] = ()
    paste: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Band:
    """What the marks are compared with: a line of y with its interval, over the whole width."""

    name: str
    mean: float
    low: float
    high: float


@dataclass(frozen=True, kw_only=True)
class Panel:
    """One pair of axes; a map of values where it has `cells`, else marks.

    x_lines   x of vertical lines, such as a target
    x_ticks   where a logarithmic axis has its ticks; () = it is one of factors, with their usual ones
    diagonal  draws y = x
    cells     rows of values, None where nothing was measured; x_names and y_names are theirs
    """

    title: str
    x: str
    y: str
    marks: Sequence[Marks] = ()
    band: Band | None = None
    x_lines: Sequence[float] = ()
    x_log: bool = False
    x_ticks: Sequence[float] = ()
    y_log: bool = False
    diagonal: bool = False
    cells: Sequence[Sequence[float | None]] = ()
    x_names: Sequence[str] = ()
    y_names: Sequence[str] = ()


@dataclass(frozen=True, kw_only=True)
class Plot:
    """Panels of one kind, in files of one name."""

    name: str
    about: str
    panels: Sequence[Panel]


def numbers(plot: Plot) -> Iterator[dict[str, Any]]:
    """The rows of the picture's CSV: every point, every cell of a map."""
    for panel in plot.panels:
        for marks in panel.marks:
            for place, (x, y) in enumerate(zip(marks.x, marks.y, strict=True)):
                of_point = {"low": marks.low, "high": marks.high, "about": marks.about}
                told = {name: values[place] if values else None for name, values in of_point.items()}
                yield {"panel": panel.title, "name": marks.name, panel.x: x, panel.y: y, **told}
        for name, values in zip(panel.y_names, panel.cells, strict=True):
            for column, value in zip(panel.x_names, values, strict=True):
                yield {"panel": panel.title, panel.x: column, panel.y: name, "value": value}
