"""The overrides of every winner."""

from html import escape

from sahub.report.shown import Shown

PLACE = 5


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    winners = "".join(
        f"<li><b>{escape(result.cell.name)}</b> <code>{escape(' '.join(result.study.best.overrides))}</code></li>"
        for result in shown.found
        if result.study is not None and result.study.best is not None
    )
    return f"<h2>Winners</h2><ul>{winners}</ul>" if winners else ""
