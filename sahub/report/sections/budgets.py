"""The density that was asked for against the one that was measured."""

from sahub.report.plots import Marks, Panel, Plot
from sahub.report.shown import Shown, who

PLACE = 6
TITLE = "Asked against measured"
FOLDED = True
ABOUT = "Winners, where they were validated. On the line, what was asked is used; above it, a target is missed."


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    panels = []
    for model, cells in shown.by(lambda row: str(row["model"])):
        rows = [cell.row for cell in cells if cell.row["validation"] and cell.row["target_density"]]
        marks = [
            Marks(
                name=builder,
                x=[row["target_density"] for row in rows if row["builder"] == builder],
                y=[row["validation"]["measures"]["density"] for row in rows if row["builder"] == builder],
                colour=shown.colours[builder],
                about=[f"{who(row)}, {row['task']}" for row in rows if row["builder"] == builder],
            )
            for builder in dict.fromkeys(row["builder"] for row in rows)
        ]
        if marks:
            panels.append(Panel(title=model, x="density asked", y="density measured", marks=marks, diagonal=True))
    return [Plot(name="budgets", about=ABOUT, panels=panels)]
