"""The table of a bench on a terminal."""

from collections.abc import Sequence
from pathlib import Path

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sahub.bench.findings import MB, Findings
from sahub.timing.machine import shown
from sahub.timing.measure import Measured

COLUMNS = ("keys", "append", "select", "attend", "rest", "step", "x dense", "MB read", "tokens/s", "build s", "peak MB")
NOTE = (
    "milliseconds of a step, medians of rounds that alternate with dense; rest: all but attention; MB read: keys, "
    "values and index; peak: of the process, with this builder alone"
)


def show(found: Sequence[Findings], folder: Path) -> None:
    """A table for each model, as wide as it must be, and where its files are."""
    for one in found:
        drawn = _drawn(one)
        wide = Console(width=1000).measure(drawn).maximum
        Console(width=max(wide, Console().width)).print(drawn)
        _lines(*(f"{name}: {crossing.text}" for name, crossing in one.crossovers.items()))
    _lines(NOTE, f"keys: {_filled(found)}", f"files: {folder}")


def _drawn(one: Findings) -> Table:
    title = f"model {one.model}, {one.dtype}, sparse in {one.layers} layers; {shown(one.machine)}"
    drawn = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    drawn.add_column("builder", no_wrap=True)
    for name in COLUMNS:
        drawn.add_column(name, justify="right", no_wrap=True)
    for place, measured in enumerate(one.measured):
        ends = place % len(one.names) == len(one.names) - 1
        drawn.add_row(measured.name, *_texts(measured), end_section=ends)
    return drawn


def _texts(one: Measured) -> list[str]:
    """What stands in the columns."""
    return [
        f"{one.length:,}",
        *(f"{1e3 * seconds:.2f}" for seconds in one.parts.values),
        f"{1e3 * one.step:.2f}",
        f"{one.against_dense:.2f}",
        f"{one.bytes_read / MB:.3g}",
        f"{1 / one.step:.1f}",
        f"{one.build_seconds:.3g}",
        "-" if one.peak_bytes is None else f"{one.peak_bytes / MB:,.0f}",
    ]


def _filled(found: Sequence[Findings]) -> str:
    """Which keys the steps were timed on."""
    every = [one for findings in found for one in findings.measured]
    most = max(one.text_tokens for one in every)
    if all(one.text_tokens == one.length for one in every):
        return "those of a text"
    return f"those of a text up to {most:,} tokens, then random ones like them, channel by channel"


def _lines(*lines: str) -> None:
    console = Console(soft_wrap=True, highlight=False)
    for line in lines:
        console.print(line)
