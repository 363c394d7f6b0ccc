"""The table, the summary file, the picture and the one-page report of a run."""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sahub.config.cell import Cell
from sahub.engine.model import Counters
from sahub.extensions import all_of
from sahub.files.atomic import write_bytes, write_json, write_text
from sahub.report.columns import LEFT, ONLY_IN_HTML, note, texts_of
from sahub.report.comparisons import differences
from sahub.report.shown import Shown, work_lines
from sahub.results.cell_files import decided, frontier_rows, weights_of
from sahub.results.cell_result import CellResult
from sahub.results.headline import benchmarks, headline_lines
from sahub.search.optuna_export import importances_of
from sahub.search.trial import space_of_cell


def write(
    root: Path, found: Sequence[CellResult], counters: Mapping[str, Counters], *, seconds: float, show: bool
) -> None:
    """`benchmark_summary.json`, `report.html` and its picture in `root`; with `show` the table on standard output."""
    rows = [{**row(result), "compared": differences(result, found)} for result in found]
    work = {name: asdict(counter) for name, counter in counters.items()}
    summary = {"cells": rows, "benchmarks": benchmarks(validated(found)), "work": work, "seconds": round(seconds, 3)}
    write_json(root / "benchmark_summary.json", summary)
    pictures = _pictures(found)
    for name, picture in pictures.items():
        write_bytes(root / f"{name}.png", picture)
    lines = headline_lines(validated(found))
    shown = Shown(found=found, rows=rows, lines=lines, work=work, seconds=seconds, pictures=pictures)
    write_text(root / "report.html", page(shown))
    write_text(root / "report.md", markdown(found, rows))
    if show and any(result.ok for result in found):
        display(root, found, rows, work, seconds)


def _pictures(found: Sequence[CellResult]) -> dict[str, bytes]:
    """The pictures of all sections that are one, by the section's name."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that cannot be written
    drawing = [section for section in all_of("report/sections") if hasattr(section, "picture")]
    drawn = {section.__name__.rpartition(".")[2]: section.picture(found) for section in drawing}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def display(
    root: Path,
    found: Sequence[CellResult],
    rows: Sequence[Mapping[str, Any]],
    work: Mapping[str, Mapping[str, int]],
    seconds: float,
) -> None:
    """The table on standard output, as wide as it must be: a wrapped table cannot be read."""
    drawn = table(found, rows)
    wide = Console(width=1000).measure(drawn).maximum
    Console(width=max(wide, Console().width)).print(drawn)
    console = Console(soft_wrap=True, highlight=False)
    console.print(note(rows), style="dim")
    for line in [*headline_lines(validated(found)), *work_lines(work, seconds), f"files: {root}"]:
        console.print(line)


def validated(found: Sequence[CellResult]) -> list[tuple[Cell, Mapping[str, Any]]]:
    """The cells with the figures of their validations."""
    return [(result.cell, result.figures) for result in found]


def row(result: CellResult) -> dict[str, Any]:
    """One cell as it stands in the summary file."""
    cell, study = result.cell, result.study
    best = study.best if study else None
    return {
        **asdict(cell.choices),
        "ok": result.ok,
        "message": result.message,
        "directory": cell.directory.name,
        "target_density": cell.settings.objective.density,
        "target_aux_bits": cell.settings.objective.aux_bits,
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


def table(found: Sequence[CellResult], rows: Sequence[Mapping[str, Any]]) -> Table:
    """The final table."""
    title, names, lines = contents(found, rows)
    drawn = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        drawn.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for one, line in zip(rows, lines, strict=True):
        drawn.add_row(*line, style=None if one["ok"] else "red")
    return drawn


def markdown(found: Sequence[CellResult], rows: Sequence[Mapping[str, Any]]) -> str:
    """The final table for a document."""
    title, names, lines = contents(found, rows)
    sides = [":--" if name in LEFT else "--:" for name in names]
    body = "".join(f"| {' | '.join(line)} |\n" for line in [names, sides, *lines])
    return "\n".join([title, "", body, *(f"{line}\n" for line in headline_lines(validated(found))), note(rows), ""])


def contents(found: Sequence[CellResult], rows: Sequence[Mapping[str, Any]]) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and lines of the table; what is the same in every row stands above it, to keep it narrow."""
    texts = texts_of(rows)
    same = {name: {text[name] for text in texts} for name in ("sparse in", "objective", "asked", "n")}
    shared = {name: one for name, (one, *more) in same.items() if not more and one != "-"}
    models = ", ".join(sorted({_named(result) for result in found}))
    title = ", ".join([f"model {models}", *(f"{name} {text}" for name, text in shared.items())])
    empty = {name for name in texts[0] if all(text[name] == "-" for text in texts)}
    names = [name for name in texts[0] if name not in {*shared, *empty, *ONLY_IN_HTML}]
    return title, names, [[text[name] for name in names] for text in texts]


def _named(result: CellResult) -> str:
    """The model, with how its weights are stored where they are unpacked to be run."""
    weights = weights_of(result.cell)
    return f"{result.cell.choices.model} ({weights})" if weights else result.cell.choices.model


def page(shown: Shown) -> str:
    """The report: one HTML file that needs nothing else."""
    sections = "\n".join(filter(None, (section.html(shown) for section in all_of("report/sections"))))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sahub report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; font-size: 13px; }}
td, th {{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; }}
th {{ text-align: left; background: #f4f4f4; }} td {{ white-space: nowrap; }} tr.bad td {{ color: #b00; }}
code {{ font-size: 12px; }} img {{ max-width: 100%; }} .wide {{ overflow-x: auto; }}
.note {{ color: #666; font-size: 13px; }}
</style></head><body><h1>sahub report</h1>
{sections}
</body></html>
"""
