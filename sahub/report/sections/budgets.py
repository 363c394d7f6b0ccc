"""Of searches over a frontier: the winner for each budget."""

from collections.abc import Mapping
from html import escape
from typing import Any

from sahub.report.shown import Shown

PLACE = 6
HEAD = ("cell", "budget", "value", "on other contexts", "density", "bits", "overrides")


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    body = "".join(_line(one["directory"], found) for one in shown.rows for found in one.get("frontier", []))
    head = "".join(f"<th>{name}</th>" for name in HEAD)
    note = "value: of the answers that chose; on other contexts: of answers forced on contexts that chose nothing."
    table = f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'
    return f'<h2>Budgets</h2>{table}<p class="note">{note}</p>' if body else ""


def _line(cell: str, found: Mapping[str, Any]) -> str:
    checked = found["checked"]
    numbers = [found["value"], checked and checked["value"], found["density"], found["aux_bits"]]
    texts = ["-" if number is None else f"{number:.3g}" for number in numbers]
    cells = [cell, found["budget"], *texts, " ".join(found["overrides"])]
    return "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in cells) + "</tr>"
