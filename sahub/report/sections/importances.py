"""Which free fields moved the values of each search."""

from html import escape

from sahub.report.shown import Shown

PLACE = 7


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    told = "".join(
        f"<li><b>{escape(one['directory'])}</b> "
        + escape(", ".join(f"{name} {100 * share:.0f} %" for name, share in one["importances"].items()))
        + "</li>"
        for one in shown.rows
        if one.get("importances")
    )
    return f"<h2>What mattered</h2><ul>{told}</ul>" if told else ""
