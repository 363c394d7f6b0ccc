"""The winners, and the two lines that repeat each."""

from typing import Any

from sahub.report.shown import Shown, who

PLACE = 10
TITLE = "To repeat it"


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    winners = [
        {
            "name": f"{who(cell.row)}, {cell.row['task']}",
            "fields": [item.removeprefix("builder.stages.") for item in cell.best["stage_overrides"]],
            "lines": list(cell.best["commands"].values()),
            "to_type": cell.best["to_type"],
        }
        for cell in shown.cells
        if cell.best
    ]
    return {"winners": winners} if winners else None
