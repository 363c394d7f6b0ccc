"""The answer, in sentences: overall, and for every task."""

from typing import Any

from sahub.report.answers import answer, overall
from sahub.report.shown import Shown

PLACE = 0
TITLE = "The answer"


def content(shown: Shown) -> dict[str, Any]:
    """See sahub.report.sections."""
    found = []
    for table in shown.tables:
        cells = [cell for cell in shown.cells if any(cell.row is row for row in table.rows)]
        for choice in dict.fromkeys(_budget(cell.row) for cell in cells):
            same = [cell for cell in cells if _budget(cell.row) == choice]
            tasks: dict[Any, list[Any]] = {}
            for cell in same:
                length = (cell.row["validation"] or {}).get("tokens", 0)
                tasks.setdefault((cell.row["task"], length), []).append(cell)
            found.append(
                {
                    "model": choice[0],
                    "asked": choice[2],
                    "bits": choice[3],
                    "objective": choice[1],
                    "differs": table.apart,
                    "overall": overall([cell.row for cell in same]),
                    "answers": [answer(group) for group in tasks.values()],
                }
            )
    return {"groups": found}


def _budget(row: Any) -> tuple[Any, ...]:
    return row["model"], row["objective"], row["target_density"], row["target_aux_bits"]
