"""The table of all cells, the headlines of benchmarks, and what stands in the columns."""

from html import escape

from sahub.report.columns import note, texts_of
from sahub.report.shown import Shown

PLACE = 1


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    texts = texts_of(shown.rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in texts[0])
    body = "".join(
        f"<tr class='{'ok' if one['ok'] else 'bad'}'>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in text.values())
        + "</tr>"
        for one, text in zip(shown.rows, texts, strict=True)
    )
    lines = "".join(f"<p>{escape(line)}</p>" for line in shown.lines)
    return (
        f'<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>\n'
        f'{lines}<p class="note">{escape(note(shown.rows))}</p>'
    )
