"""Every figure of the summary file, to be unfolded."""

import json
from html import escape

from sahub.report.shown import Shown

PLACE = 9


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    figures = escape(json.dumps(shown.rows, indent=1, sort_keys=True))
    return f"<details><summary>All figures</summary><pre>{figures}</pre></details>"
