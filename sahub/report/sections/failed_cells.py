"""The cells that have no result, and why."""

from html import escape

from sahub.report.shown import Shown

PLACE = 2


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    failures = "".join(
        f"<li><b>{escape(result.cell.name)}</b>: {escape(result.message)}</li>"
        for result in shown.found
        if not result.ok
    )
    return f"<h2>Failed cells</h2><ul>{failures}</ul>" if failures else ""
