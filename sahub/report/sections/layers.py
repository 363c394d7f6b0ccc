"""Where the loss is made: error and density of every sparse layer, in the question and in the answer."""

from collections.abc import Sequence
from statistics import fmean
from typing import Any

from sahub.report.plots import Panel, Plot
from sahub.report.shown import Shown, who

PLACE = 8
TITLE = "Layers and phases"
FOLDED = True
PHASES = ("question", "decode")


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    errors, densities = [], []
    for cell in shown.cells:
        rows = cell.micro() if cell.row["builder"] != "dense" else []
        if rows:
            name = f"{who(cell.row)}, {cell.row['task']}"
            errors.append(_map(f"{name}: attention error", rows, "e"))
            densities.append(_map(f"{name}: density", rows, "density"))
    return [
        Plot(name="layers_error", about="Attention error of the winners, mean over questions.", panels=errors),
        Plot(name="layers_density", about="Share of keys that they attend to.", panels=densities),
    ]


def _map(title: str, rows: Sequence[dict[str, Any]], column: str) -> Panel:
    layers = sorted({row["layer"] for row in rows})
    found: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row[column] is not None:
            found.setdefault((row["phase"], row["layer"]), []).append(row[column])
    cells = [[fmean(found[phase, layer]) if (phase, layer) in found else None for layer in layers] for phase in PHASES]
    return Panel(title=title, x="layer", y="phase", cells=cells, x_names=[str(one) for one in layers], y_names=PHASES)
