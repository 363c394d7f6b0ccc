"""The files of a bench: every number as a table, with what it was measured of and on, and a picture."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sahub.bench.findings import MB, Findings, row_of
from sahub.files.atomic import write_bytes, write_csv, write_json
from sahub.report.pictures import png
from sahub.report.plots import GREY, Marks, Panel, Plot
from sahub.timing.measure import Measured


def write(folder: Path, found: Sequence[Findings], versions: Mapping[str, str]) -> None:
    """`bench.csv` and `bench.json`."""
    write_csv(folder / "bench.csv", [row_of(one.model, step) for one in found for step in one.measured])
    write_json(folder / "bench.json", {"versions": versions, "models": [one.document() for one in found]})


def draw(folder: Path, found: Sequence[Findings]) -> None:
    """`bench.png`: last, as what draws takes memory that would be a builder's."""
    write_bytes(folder / "bench.png", png(plot(found)))


def plot(found: Sequence[Findings]) -> Plot:
    """Milliseconds and megabytes of a step over keys, a pair of panels for each model."""
    panels = [
        Panel(
            title=f"{one.model}: {title}",
            x="keys",
            y=title,
            x_log=True,
            x_ticks=sorted({step.length for step in one.measured}),
            marks=[marks for name in one.names for marks in _marks(one, name, place)],
        )
        for one in found
        for place, title in enumerate(("ms a step", "MB read a step"))
    ]
    return Plot(name="bench", about="what a decoding step costs", panels=panels)


def _marks(found: Findings, name: str, place: int) -> list[Marks]:
    """Dots of one builder, and a line through them."""
    steps = sorted((one for one in found.measured if one.name == name), key=lambda one: one.length)
    x, y = [float(one.length) for one in steps], [_pair(one)[place] for one in steps]
    colour = found.names.index(name) - 1 if name != "dense" else GREY
    return [Marks(name=name, x=x, y=y, colour=colour, style=style) for style in ("line", "dot")]


def _pair(one: Measured) -> tuple[float, float]:
    return 1e3 * one.step, one.bytes_read / MB
