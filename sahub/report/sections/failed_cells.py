"""The cells that have no result, and why."""

from typing import Any

from sahub.report.shown import Shown

PLACE = 2
TITLE = "Failed cells"


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    failed = [cell.row for cell in shown.cells if not cell.row["ok"]]
    return {"rows": failed} if failed else None
