"""What was loaded, prefilled and generated."""

from html import escape

from sahub.report.shown import Shown
from sahub.report.terminal import work_lines

PLACE = 6


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    lines = "".join(f"<li>{escape(line)}</li>" for line in work_lines(shown.work, shown.seconds))
    return f"<h2>Work</h2><ul>{lines}</ul>"
