"""`benchmark_summary.json`: every cell of a run in figures."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sahub.config.cell import Cell
from sahub.engine.model import Counters
from sahub.report.comparisons import differences
from sahub.report.tables import tables
from sahub.results.cell_files import versions, weights_of
from sahub.results.cell_result import CellResult
from sahub.results.headline import benchmarks, headline_lines
from sahub.results.protocol import protocol_of
from sahub.results.study_figures import decided, frontier_rows
from sahub.search.objective import minimised
from sahub.search.optuna_export import importances_of
from sahub.search.trial import space_of_cell

FORMAT = 2


def summary(found: Sequence[CellResult], counters: Mapping[str, Counters], seconds: float) -> dict[str, Any]:
    """What the file says: cells, headlines of benchmarks, the work that was done."""
    rows = [{**_row(result), "compared": differences(result, found)} for result in found]
    said = {row["directory"]: row["verdict"] for table in tables(rows) for row in table.rows}
    return {
        "format": FORMAT,
        "cells": [{**row, "verdict": said[row["directory"]]} for row in rows],
        "benchmarks": benchmarks(validated(found)),
        "headlines": headline_lines(validated(found)),
        "work": {name: asdict(counter) for name, counter in counters.items()},
        "versions": versions(),
        "seconds": round(seconds, 3),
    }


def validated(found: Sequence[CellResult]) -> list[tuple[Cell, Mapping[str, Any]]]:
    """The cells with the figures of their validations."""
    return [(result.cell, result.figures) for result in found]


def _row(result: CellResult) -> dict[str, Any]:
    """One cell as it stands in the file."""
    cell, study = result.cell, result.study
    best = study.best if study else None
    return {
        **asdict(cell.choices),
        "ok": result.ok,
        "message": result.message,
        "directory": cell.directory.name,
        "target_density": cell.settings.objective.density,
        "target_aux_bits": cell.settings.objective.aux_bits,
        "measure": minimised(cell.settings.objective),
        "step_costs": result.costs.document() if result.costs else None,
        "methods": [(fields or {}).get("method", label) for label, fields in cell.builder["stages"].items()],
        "protocol": protocol_of(cell),
        "trials": study.counts() if study else None,
        "best": None if best is None else {"overrides": list(best.overrides), "value": best.value, **best.measures},
        "values": _values(study.trials) if study else None,
        "calibration": None if study is None or study.tau is None else {**study.tau._asdict(), "regret": study.regret},
        "decision": decided(study) if study else None,
        "frontier": frontier_rows(study) if study else [],
        "importances": importances_of(space_of_cell(cell), study) if study else None,
        "validation": result.figures or None,
        "weights": weights_of(cell),
        "seconds": round(result.seconds, 3),
        "computed": result.computed,
        "served": result.served,
    }


def _values(trials: Sequence[Any]) -> dict[str, float] | None:
    values = [trial.value for trial in trials if trial.state == "complete" and trial.fidelity == trials[0].fidelity]
    return {"best": min(values), "worst": max(values)} if values else None
