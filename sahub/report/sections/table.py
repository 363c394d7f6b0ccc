"""The tables of all cells, the headlines of benchmarks, and what stands in the columns."""

from typing import Any

from sahub.report.columns import LEFT, note, texts_of
from sahub.report.shown import Shown
from sahub.report.terminal import contents

PLACE = 1
TITLE = "All cells"


def content(shown: Shown) -> dict[str, Any]:
    """See sahub.report.sections."""
    drawn = []
    for table in shown.tables:
        texts = texts_of(table.rows)
        names = [name for name in texts[0] if any(text[name] != "-" for text in texts)]
        several = len({row["model"] for row in table.rows}) > 1
        lines = [
            {"ok": row["ok"], "cells": [*([row["model"]] if several else []), *(text[name] for name in names)]}
            for row, text in zip(table.rows, texts, strict=True)
        ]
        shown_names = [*(["model"] if several else []), *names]
        title, kept, _ = contents(table)
        hidden = {name for name in names if name not in kept}
        drawn.append({"title": title, "names": shown_names, "hidden": hidden, "lines": lines, "differs": table.apart})
    headlines = [line for run in shown.runs for line in run.summary["headlines"]]
    rows = [row for table in shown.tables for row in table.rows]
    return {"tables": drawn, "left": {*LEFT, "model", "verdict"}, "headlines": headlines, "note": note(rows)}
