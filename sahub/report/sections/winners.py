"""The overrides of every winner, and why it is the default where a trial was not good enough."""

from html import escape

from sahub.report.shown import Shown
from sahub.search.trial import Study

PLACE = 5


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    winners = "".join(
        f"<li><b>{escape(result.cell.name)}</b> <code>{escape(' '.join(result.study.best.overrides))}</code>"
        f"{escape(_stays(result.study))}</li>"
        for result in shown.found
        if result.study is not None and result.study.best is not None
    )
    return f"<h2>Winners</h2><ul>{winners}</ul>" if winners else ""


def _stays(study: Study) -> str:
    return f" the default stays: {study.decision.stays}" if study.decision and study.decision.stays else ""
