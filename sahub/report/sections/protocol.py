"""Under which protocol, with which versions, and with how much work the numbers were made."""

from collections.abc import Sequence
from typing import Any

from sahub.report.shown import Shown
from sahub.report.tables import Row
from sahub.report.terminal import work_lines

PLACE = 11
TITLE = "Protocol, versions and work"


def content(shown: Shown) -> dict[str, Any]:
    """See sahub.report.sections."""
    runs = [
        {
            "root": run.root.name,
            "versions": run.summary["versions"],
            "work": work_lines(run.summary["work"], run.summary["seconds"]),
        }
        for run in shown.runs
    ]
    return {"tables": [_protocol(table.rows) for table in shown.tables], "runs": runs}


def _protocol(rows: Sequence[Row]) -> dict[str, str]:
    """What the cells of a table have in common, and where they differ by model or task all their values."""
    found: dict[str, dict[str, None]] = {}
    for key, value in (pair for row in rows for pair in row["protocol"].items()):
        if value not in (None, [], {}):
            found.setdefault(key, {})[str(value)] = None
    return {key: " | ".join(texts) for key, texts in sorted(found.items())}
