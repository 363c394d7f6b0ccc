"""Questions that dense answers right and the winner wrong, and the other way round; which heads dropped the answer."""

import json
from collections.abc import Mapping, Sequence
from statistics import fmean
from typing import Any

from sahub.report.plots import Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, where, who

PLACE = 7
TITLE = "Questions that changed"
MOST = 8  # of a kind and cell that are shown
HEADS, LEAST = 6, 0.05  # of a question that are named: those that lost most, each at least so much of its attention
ABOUT = (
    "Where the gold answer was dropped, mean over the questions that dense answers better: the share of its attention "
    "that a head gives densely, while the answer is written, to tokens of the context where the gold answer stands, "
    "and that the winner did not keep."
)


def content(shown: Shown) -> dict[str, Any] | None:
    """See sahub.report.sections."""
    found = [one for one in map(_flips, _sparse(shown)) if one["lost"] or one["won"]]
    return {"cells": found, "most": MOST} if found else None


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    panels = [_map(cell, [*cell.gold.values()]) for cell in _sparse(shown)]
    return [Plot(name="gold_spans", about=ABOUT, panels=[panel for panel in panels if panel])]


def _sparse(shown: Shown) -> list[CellFiles]:
    return [cell for cell in shown.cells if cell.row["builder"] != "dense"]


def _flips(cell: CellFiles) -> dict[str, Any]:
    dense, sparse, gold = cell.answers("dense"), cell.answers("sparse"), cell.gold
    both = [_pair(row, sparse[key], gold.get(key)) for key, row in dense.items() if key in sparse and row["score"]]
    lost = [one for one in both if one["sparse_score"] < one["dense_score"]]
    won = [one for one in both if one["sparse_score"] > one["dense_score"]]
    return {"name": f"{who(cell.row)}, {where(cell.row)}", "lost": lost, "won": won, "all": len(both)}


def _pair(dense: Mapping[str, str], sparse: Mapping[str, str], gold: Mapping[str, Any] | None) -> dict[str, Any]:
    return {
        "id": dense["id"],
        "question": dense["question"],
        "references": json.loads(dense["references"] or "[]"),
        "needle": dense.get("needle") or None,
        "dropped": None if gold is None else _dropped(gold),
        **{name: row["answer"] for name, row in (("dense", dense), ("sparse", sparse))},
        **{f"{name}_score": float(row["score"]) for name, row in (("dense", dense), ("sparse", sparse))},
    }


def _dropped(gold: Mapping[str, Any]) -> dict[str, Any]:
    """The places of the gold answer, and the heads that lost most of their attention to it."""
    heads = [
        {"layer": layer, "head": head, "weight": weight, "lost": lost}
        for layer, weights, losts in zip(gold["layers"], gold["weight"], gold["lost"], strict=True)
        for head, (weight, lost) in enumerate(zip(weights, losts, strict=True))
    ]
    most = sorted((one for one in heads if one["lost"] >= LEAST), key=lambda one: -one["lost"])
    return {"spans": gold["spans"], "heads": most[:HEADS], "more": len(most[HEADS:]), "all": len(heads)}


def _map(cell: CellFiles, found: Sequence[Mapping[str, Any]]) -> Panel | None:
    by_head: dict[tuple[int, int], list[float]] = {}
    for one in found:
        for layer, losts in zip(one["layers"], one["lost"], strict=True):
            for head, lost in enumerate(losts):
                by_head.setdefault((layer, head), []).append(lost)
    if not by_head:
        return None
    layers, heads = ([*range(min(axis), max(axis) + 1)] for axis in zip(*by_head, strict=True))
    cells = [[fmean(by_head[at, head]) if (at, head) in by_head else None for head in heads] for at in layers]
    return Panel(
        title=f"{who(cell.row)}, {where(cell.row)}", x="head", y="layer", cells=cells,
        x_names=[str(head) for head in heads], y_names=[str(layer) for layer in layers],
    )  # fmt: skip
