"""Plots as PNG."""

import io
import logging
import math
from typing import Any

from sahub.report.plots import GREY, Marks, Panel, Plot

PALETTE = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#b8860b", "#56b4e9", "#8c564b", "#7f5fc0")
STYLES: dict[str, dict[str, Any]] = {
    "dot": {"marker": "o", "linestyle": "none", "markersize": 6},
    "ring": {"marker": "o", "linestyle": "none", "markersize": 6, "fillstyle": "none"},
    "star": {"marker": "*", "linestyle": "none", "markersize": 14},
    "faint": {"marker": "o", "linestyle": "none", "markersize": 4, "alpha": 0.4},
    "line": {"linestyle": "-", "linewidth": 1, "alpha": 0.6},
}
SHAPES = ("o", "s", "^", "D")  # with the palette's colours: more builders than there are colours
ACROSS = 3
TICKS = tuple(step * 10**power for power in range(5) for step in (1, 2, 5))
INSIDE = 8  # names, up to which a legend leaves room for the marks
BESIDE = 2.1  # inches of a legend beside the panels


def png(plot: Plot) -> bytes:
    """The panels in rows of three."""
    from matplotlib.figure import Figure  # half a second, for runs that draw nothing

    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that cannot be written
    across = min(ACROSS, len(plot.panels))
    down = math.ceil(len(plot.panels) / across)
    names = {marks.name for panel in plot.panels for marks in panel.marks if _is_named(marks)}
    beside = BESIDE if len(names) > INSIDE else 0.0
    width = 5.2 * across + beside
    figure = Figure(figsize=(width, 4.2 * down))
    left, right = 0.68 / width, 1 - (0.16 + beside) / width
    spread = {"left": left, "right": right, "top": 1 - 0.08 / down, "bottom": 0.12 / down}
    figure.subplots_adjust(**spread, wspace=0.25, hspace=0.35)  # one that is worked out takes as long as the drawing
    axes = figure.subplots(down, across, squeeze=False).flat
    for axis, panel in zip(axes, plot.panels, strict=False):
        _draw(axis, panel)
    for axis in list(axes)[len(plot.panels) :]:
        axis.set_visible(False)
    drawn: dict[str, Any] = {}
    for axis in figure.axes:
        handles, labels = axis.get_legend_handles_labels()
        drawn.update(zip(labels, handles, strict=True))
        if labels and not beside:
            axis.legend(fontsize=7)
    if beside:
        figure.legend(drawn.values(), drawn.keys(), fontsize=7, loc="center right", frameon=False)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _draw(axis: Any, panel: Panel) -> None:
    if panel.cells:
        values = [[math.nan if value is None else value for value in row] for row in panel.cells]
        shades = axis.imshow(values, aspect="auto")
        axis.set_xticks(range(len(panel.x_names)), panel.x_names, fontsize=7)
        axis.set_yticks(range(len(panel.y_names)), panel.y_names, fontsize=8)
        axis.figure.colorbar(shades, ax=axis)
    for marks in panel.marks:
        _mark(axis, marks)
    if panel.band is not None:
        axis.axhspan(panel.band.low, panel.band.high, color="black", alpha=0.1, linewidth=0)
        axis.axhline(panel.band.mean, color="black", linewidth=1, label=panel.band.name)
    for x in panel.x_lines:
        axis.axvline(x, color="grey", linewidth=0.8, linestyle=":")
    if panel.diagonal:
        axis.axline((0, 0), slope=1, color="grey", linewidth=0.8)
    if panel.x_log:
        axis.set_xscale("log")
        ends = [float(x) for marks in panel.marks for x in marks.x]
        ends += [] if panel.x_ticks else [1.0]  # of factors dense, 1, is always seen
        axis.set_xlim(min(ends) / 1.1, max(ends) * 1.3)
        axis.set_xticks(list(panel.x_ticks) or [x for x in TICKS if x <= max(ends) * 1.3], minor=False)
        axis.set_xticks([], minor=True)
        axis.xaxis.set_major_formatter("{x:,.10g}")
    if panel.y_log:
        axis.set_yscale("log")
    axis.set_title(panel.title, fontsize=10)
    axis.set(xlabel=panel.x, ylabel=panel.y)


def _is_named(marks: Marks) -> bool:
    """Whether a legend says what they are."""
    return marks.style not in {"line", "ring", "bar"}


def _mark(axis: Any, marks: Marks) -> None:
    colour = "grey" if marks.colour == GREY else PALETTE[marks.colour % len(PALETTE)]
    label = marks.name if _is_named(marks) else None
    if marks.style == "bar":
        axis.barh([str(x) for x in marks.x], list(marks.y), color=colour)
        return
    shape = SHAPES[max(marks.colour, 0) // len(PALETTE) % len(SHAPES)]
    style = STYLES[marks.style]
    style = {**style, "marker": shape} if style.get("marker") == "o" else style
    axis.plot(list(marks.x), list(marks.y), color=colour, label=label, **style)
    for x, low, high in zip(marks.x, marks.low, marks.high, strict=False):
        if low is not None and high is not None:
            axis.plot([x, x], [low, high], color=colour, linewidth=1)
