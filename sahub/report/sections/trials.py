"""What every trial cost and gave: density against the measure."""

import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from sahub.config.choices import command
from sahub.measures import MEASURES
from sahub.report.plots import GREY, Marks, Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, where, who

PLACE = 4
TITLE = "Trials"
ABOUT = (
    "Every complete trial on the contexts of the search, lower is better; stars: the winners; grey: trials that do not "
    "meet the targets; dotted: the density that was asked for. Click a point for the line that validates it."
)


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    panels = []
    for name, cells in shown.by(lambda row: f"{where(row)}, {row['measure']}"):
        marks = [one for cell in cells for one in _marks(shown, cell)]
        if marks:
            asked = sorted({row["target_density"] for row in (cell.row for cell in cells) if row["target_density"]})
            measure = cells[0].row["measure"]
            log = measure in MEASURES and MEASURES[measure].log_axis
            log = log and all(y > 0 for one in marks for y in one.y)
            x = "density: share of keys attended to"
            panels.append(Panel(title=name, x=x, y=measure, marks=marks, x_lines=asked, y_log=log))
    return [Plot(name="trials", about=ABOUT, panels=panels)]


def _marks(shown: Shown, cell: CellFiles) -> list[Marks]:
    trials = [trial for trial in searched(cell) if cell.row["measure"] in trial["measures"]]
    colour = shown.colours[cell.row["builder"]]
    best = [cell.best.get("stage_overrides"), *(won["overrides"] for won in cell.row["frontier"])]
    won = [trial for trial in trials if trial["overrides"] in best]
    met = [trial for trial in trials if trial["feasible"] and trial not in won]
    missed = [trial for trial in trials if not trial["feasible"]]
    groups = (
        _group(cell, met, who(cell.row), "faint", colour),
        _group(cell, missed, f"{who(cell.row)}, infeasible", "faint", GREY),
        _group(cell, won, f"{who(cell.row)}, winner", "star", colour),
    )
    return [marks for marks in groups if marks.x]


def _group(cell: CellFiles, trials: Sequence[Any], name: str, style: Any, colour: int) -> Marks:
    return Marks(
        name=name,
        x=[trial["measures"]["density"] for trial in trials],
        y=[trial["measures"][cell.row["measure"]] for trial in trials],
        style=style,
        colour=colour,
        about=[_about(cell, trial) for trial in trials],
        paste=[line(cell, trial) for trial in trials],
    )


def searched(cell: CellFiles) -> list[Mapping[str, Any]]:
    """The complete trials at the fidelity of the search."""
    return [
        trial
        for trial in cell.trials
        if trial["state"] == "complete" and trial["fidelity"] == cell.trials[0]["fidelity"]
    ]


def line(cell: CellFiles, trial: Mapping[str, Any]) -> str:
    """The command that validates a trial; where the cell has no winner, with the choices alone."""
    own = [f"{name}={cell.row[name]}" for name in ("model", "task", "builder", "objective")]
    tuned = set(cell.best.get("stage_overrides", ()))
    base = [item for item in cell.best.get("overrides", own) if item not in tuned]
    return f"{command('validate')} {shlex.join([*base, *trial['overrides']])}"


def _about(cell: CellFiles, trial: Mapping[str, Any]) -> str:
    set_to = [item.removeprefix("builder.stages.") for item in trial["overrides"]]
    figures = f"{cell.row['measure']} {trial['measures'][cell.row['measure']]:.4g}"
    return "\n".join([f"{who(cell.row)}, trial {trial['number']}: {figures}", *set_to])
