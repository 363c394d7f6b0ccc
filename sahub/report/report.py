"""The table, the summary file, the picture and the one-page report of a run."""

import base64
import html
import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sahub.files.atomic import write_json, write_text
from sahub.report import plots
from sahub.report.columns import LEFT, ONLY_IN_HTML, note, texts_of
from sahub.report.comparisons import differences
from sahub.results.headline import benchmarks, headline_lines

if TYPE_CHECKING:
    from sahub.config.cell import Cell
    from sahub.engine.model import Counters
    from sahub.results.cell_result import CellResult

log = logging.getLogger(__name__)

PICTURES = {"accuracy": plots.accuracy, "frontier": plots.frontier}
ALT = {
    "accuracy": "accuracy on validation examples with intervals",
    "frontier": "density against measure, every complete trial",
}


def write(
    root: Path, found: Sequence["CellResult"], counters: Mapping[str, "Counters"], *, seconds: float, show: bool
) -> None:
    """`benchmark_summary.json`, `report.html` and its picture in `root`; with `show` the table on standard output."""
    rows = [{**row(result), "against": differences(result, found)} for result in found]
    work = {name: asdict(counter) for name, counter in counters.items()}
    summary = {"cells": rows, "benchmarks": benchmarks(validated(found)), "work": work, "seconds": round(seconds, 3)}
    write_json(root / "benchmark_summary.json", summary)
    pictures = {name: drawn for name, draw in PICTURES.items() if (drawn := draw(found))}
    for name, picture in pictures.items():
        (root / f"{name}.png").write_bytes(picture)
    write_text(root / "report.html", page(found, rows, work, seconds, pictures))
    write_text(root / "report.md", markdown(found, rows))
    if show and any(result.ok for result in found):
        display(root, found, rows, work, seconds)


def display(
    root: Path,
    found: Sequence["CellResult"],
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


def validated(found: Sequence["CellResult"]) -> list[tuple["Cell", Mapping[str, Any]]]:
    """The cells with the figures of their validations."""
    return [(result.cell, result.figures) for result in found]


def row(result: "CellResult") -> dict[str, Any]:
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
        "validation": result.figures or None,
        "seconds": round(result.seconds, 3),
        "computed": result.computed,
        "served": result.served,
    }


def _values(trials: Sequence[Any]) -> dict[str, float] | None:
    values = [trial.value for trial in trials if trial.state == "complete" and trial.fidelity == trials[0].fidelity]
    return {"best": min(values), "worst": max(values)} if values else None


def table(found: Sequence["CellResult"], rows: Sequence[Mapping[str, Any]]) -> Table:
    """The final table."""
    title, names, lines = contents(found, rows)
    drawn = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        drawn.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for one, line in zip(rows, lines, strict=True):
        drawn.add_row(*line, style=None if one["ok"] else "red")
    return drawn


def markdown(found: Sequence["CellResult"], rows: Sequence[Mapping[str, Any]]) -> str:
    """The final table for a document."""
    title, names, lines = contents(found, rows)
    sides = [":--" if name in LEFT else "--:" for name in names]
    body = "".join(f"| {' | '.join(line)} |\n" for line in [names, sides, *lines])
    return "\n".join([title, "", body, *(f"{line}\n" for line in headline_lines(validated(found))), note(rows), ""])


def contents(
    found: Sequence["CellResult"], rows: Sequence[Mapping[str, Any]]
) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and lines of the table; what is the same in every row stands above it, to keep it narrow."""
    texts = texts_of(rows)
    same = {name: {text[name] for text in texts} for name in ("objective", "asked", "n")}
    shared = {name: one for name, (one, *more) in same.items() if not more and one != "-"}
    models = ", ".join(sorted({result.cell.choices.model for result in found}))
    title = ", ".join([f"model {models}", *(f"{name} {text}" for name, text in shared.items())])
    empty = {name for name in texts[0] if all(text[name] == "-" for text in texts)}
    names = [name for name in texts[0] if name not in {*shared, *empty, *ONLY_IN_HTML}]
    return title, names, [[text[name] for name in names] for text in texts]


def work_lines(work: Mapping[str, Mapping[str, int]], seconds: float) -> list[str]:
    """What was loaded, prefilled and generated, per model."""
    return [
        f"{name}: model loads {done['loads']}, contexts {done['contexts']}, prefills {done['prefills']} "
        f"({done['prefill_tokens']} tokens), generated tokens {done['generated_tokens']}, contexts x stacks computed "
        f"{done['computed']}, from the cache {done['served']}; {seconds:.0f} s in all"
        for name, done in work.items()
    ]


def page(
    found: Sequence["CellResult"],
    rows: Sequence[Mapping[str, Any]],
    work: Mapping[str, Mapping[str, int]],
    seconds: float,
    pictures: Mapping[str, bytes],
) -> str:
    """The report: one HTML file that needs nothing else."""
    escape = html.escape
    texts = texts_of(rows)
    head = "".join(f"<th>{escape(name)}</th>" for name in texts[0])
    body = "".join(
        f"<tr class='{'ok' if one['ok'] else 'bad'}'>"
        + "".join(f"<td>{escape(cell)}</td>" for cell in text.values())
        + "</tr>"
        for one, text in zip(rows, texts, strict=True)
    )
    failures = "".join(
        f"<li><b>{escape(result.cell.name)}</b>: {escape(result.message)}</li>" for result in found if not result.ok
    )
    winners = "".join(
        f"<li><b>{escape(result.cell.name)}</b> <code>{escape(' '.join(result.study.best.overrides))}</code></li>"
        for result in found
        if result.study is not None and result.study.best is not None
    )
    images = "".join(
        f"<h2>{name.capitalize()}</h2>"
        f'<img alt="{ALT[name]}" src="data:image/png;base64,{base64.b64encode(picture).decode()}">'
        for name, picture in pictures.items()
    )
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sahub report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; font-size: 13px; }}
td, th {{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; }}
th {{ text-align: left; background: #f4f4f4; }} td {{ white-space: nowrap; }} tr.bad td {{ color: #b00; }}
code {{ font-size: 12px; }} img {{ max-width: 100%; }} .wide {{ overflow-x: auto; }}
.note {{ color: #666; font-size: 13px; }}
</style></head><body><h1>sahub report</h1>
<div class="wide"><table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>
{"".join(f"<p>{escape(line)}</p>" for line in headline_lines(validated(found)))}<p class="note">{escape(note(rows))}</p>
{f"<h2>Failed cells</h2><ul>{failures}</ul>" if failures else ""}
{images}
{f"<h2>Winners</h2><ul>{winners}</ul>" if winners else ""}
<h2>Work</h2><ul>{"".join(f"<li>{escape(line)}</li>" for line in work_lines(work, seconds))}</ul>
<details><summary>All figures</summary><pre>{escape(json.dumps(rows, indent=1, sort_keys=True))}</pre></details>
</body></html>
"""
