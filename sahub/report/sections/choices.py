"""Which fields of a builder matter: their importances, and the measure along each."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sahub.report.plots import Marks, Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, who

PLACE = 5
TITLE = "Importances and slices"
FOLDED = True
IMPORTANCES = (
    "Share of each free field in what separates the best tenth of the trials from the others (PED-ANOVA of Optuna)."
)
SLICES = "The measure of every complete trial along each field that was searched."


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    bars, slices = [], []
    for cell in shown.cells:
        found = [trial for trial in cell.trials if trial["state"] == "complete"]
        found = [trial for trial in found if trial["fidelity"] == found[0]["fidelity"] and trial["value"] is not None]
        points = [_point(trial["overrides"]) for trial in found]
        title, values = f"{who(cell.row)}, {cell.row['task']}", [trial["value"] for trial in found]
        slices += _slices(cell, title, points, values, shown.colours[cell.row["builder"]])
        shares = dict(sorted((cell.row["importances"] or {}).items(), key=lambda pair: pair[1]))
        if shares:
            marks = Marks(name=title, x=list(shares), y=list(shares.values()), style="bar")
            bars.append(Panel(title=title, x="importance", y="field", marks=[marks]))
    return [
        Plot(name="importances", about=IMPORTANCES, panels=bars),
        Plot(name="slices", about=SLICES, panels=slices),
    ]


def _point(overrides: Sequence[str]) -> dict[str, Any]:
    split = (item.removeprefix("builder.stages.").partition("=") for item in overrides)
    values = {name: yaml.safe_load(value) for name, _, value in split}
    plain = int | float | str | bool
    return {name: value if isinstance(value, plain) else str(value) for name, value in values.items()}


def _slices(
    cell: CellFiles, title: str, points: Sequence[Mapping[str, Any]], values: Sequence[float], colour: int
) -> list[Panel]:
    panels = []
    for name in dict.fromkeys(name for point in points for name in point):
        along = [(point[name], value) for point, value in zip(points, values, strict=True) if name in point]
        if len({x for x, _ in along}) > 1:
            marks = Marks(name=title, x=[x for x, _ in along], y=[y for _, y in along], style="faint", colour=colour)
            panels.append(Panel(title=title, x=name, y=cell.row["measure"], marks=[marks]))
    return panels
