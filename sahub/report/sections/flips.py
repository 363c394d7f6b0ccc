"""Questions that dense answers right and the winner wrong, and the other way round."""

import json
from collections.abc import Mapping
from typing import Any

from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, where, who

PLACE = 7
TITLE = "Questions that changed"
MOST = 8  # of a kind and cell that are shown


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    cells = [cell for cell in shown.cells if cell.row["builder"] != "dense"]
    found = [one for one in map(_flips, cells) if one["lost"] or one["won"]]
    return {"cells": found, "most": MOST} if found else None


def _flips(cell: CellFiles) -> dict[str, Any]:
    dense, sparse = cell.answers("dense"), cell.answers("sparse")
    both = [_pair(row, sparse[key]) for key, row in dense.items() if key in sparse and row["score"]]
    lost = [one for one in both if one["sparse_score"] < one["dense_score"]]
    won = [one for one in both if one["sparse_score"] > one["dense_score"]]
    return {"name": f"{who(cell.row)}, {where(cell.row)}", "lost": lost, "won": won, "all": len(both)}


def _pair(dense: Mapping[str, str], sparse: Mapping[str, str]) -> dict[str, Any]:
    return {
        "id": dense["id"],
        "question": dense["question"],
        "references": json.loads(dense["references"] or "[]"),
        "needle": dense.get("needle") or None,
        **{name: row["answer"] for name, row in (("dense", dense), ("sparse", sparse))},
        **{f"{name}_score": float(row["score"]) for name, row in (("dense", dense), ("sparse", sparse))},
    }
