"""Of searches over a frontier: the winner for each budget."""

from typing import Any

from sahub.report.shown import Shown, where, who

PLACE = 3
TITLE = "Every budget"


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    cells = [
        {"name": f"{who(cell.row)}, {where(cell.row)}", "winners": cell.row["frontier"]}
        for cell in shown.cells
        if cell.row["frontier"]
    ]
    return {"cells": cells} if cells else None
