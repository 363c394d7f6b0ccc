"""How well the cheap measure of the search predicted the answers."""

from typing import Any

from sahub.report.plots import Marks, Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, where, who

PLACE = 9
TITLE = "Cheap measure against answers"
FOLDED = True
ABOUT = (
    "Points that were measured both ways on contexts of the search: the measure that ranked them, and the score of "
    "the answers that they generated. Where they fall from left to right, the ranking can be trusted."
)


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    rows = [cell.row for cell in shown.cells if cell.row["calibration"] and cell.row["calibration"]["n"]]
    return {"rows": rows} if rows else None


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    panels = []
    for name, cells in shown.by(lambda row: f"{where(row)}, {row['measure']}"):
        marks = [one for one in (_marks(shown, cell) for cell in cells) if one.x]
        if marks:
            measure = cells[0].row["measure"]
            panels.append(Panel(title=name, x=f"{measure} of the search", y="score of answers, %", marks=marks))
    return [Plot(name="cheap", about=ABOUT, panels=panels)]


def _marks(shown: Shown, cell: CellFiles) -> Marks:
    complete = [trial for trial in cell.trials if trial["state"] == "complete"]
    cheap = {tuple(t["overrides"]): t for t in complete if t["fidelity"] == cell.trials[0]["fidelity"]}
    dear = [t for t in complete if t["fidelity"] == "generate" and "benchmark_score" in t["measures"]]
    pairs = [(cheap[key], t) for t in dear if (key := tuple(t["overrides"])) in cheap and cheap[key] is not t]
    return Marks(
        name=who(cell.row),
        x=[one["value"] for one, _ in pairs],
        y=[100 * other["measures"]["benchmark_score"] for _, other in pairs],
        colour=shown.colours[cell.row["builder"]],
        about=[f"{who(cell.row)}, trial {one['number']}" for one, _ in pairs],
    )
