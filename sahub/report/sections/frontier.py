"""What every trial cost and gave: density against the measure."""

import io
from collections.abc import Sequence

from sahub.config.group_schemas import Objective
from sahub.measures import MEASURES
from sahub.report.shown import Shown
from sahub.results.cell_result import CellResult
from sahub.search.objective import minimised

PLACE = 4
ALT = "density against measure, every complete trial"


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    return shown.image("frontier", ALT)


def picture(found: Sequence[CellResult]) -> bytes | None:
    """A PNG of every complete trial, density against the measure, one panel per task; None without trials."""
    studied = [result for result in found if result.study is not None]
    if not studied:
        return None
    from matplotlib.figure import Figure  # half a second, for runs that draw nothing

    tasks = list(dict.fromkeys((result.cell.choices.model, result.cell.choices.task) for result in studied))
    figure = Figure(figsize=(5.2 * len(tasks), 4.2), layout="constrained")
    axes = figure.subplots(1, len(tasks), squeeze=False)[0]
    for axis, (model, task) in zip(axes, tasks, strict=True):
        for result in studied:
            choices, study = result.cell.choices, result.study
            if (choices.model, choices.task) != (model, task) or study is None:
                continue
            measure = minimised(result.cell.settings.objective)
            points = [t for t in study.trials if t.state == "complete" and measure in t.measures]
            [drawn] = axis.plot(
                [t.measures["density"] for t in points],
                [t.measures[measure] for t in points],
                "o", alpha=0.55, markersize=5, label=f"{choices.builder}, {choices.objective}",
            )  # fmt: skip
            won = [one.measures for one in (study.best, *(found.trial for found in study.frontier.values())) if one]
            stars = [one["density"] for one in won], [one[measure] for one in won]
            axis.plot(*stars, "*", color=drawn.get_color(), markersize=15)
            if result.cell.settings.objective.density is not None:
                axis.axvline(result.cell.settings.objective.density, color="grey", linewidth=0.8, linestyle=":")
            axis.set_ylabel(f"{measure} (search examples)")
        if all(_spans_orders(result.cell.settings.objective) for result in studied):
            axis.set_yscale("symlog", linthresh=0.01)
            axis.set_ylim(bottom=0)
        axis.set(title=f"{model}, {task}", xlabel="density: share of keys attended to")
        axis.legend(fontsize=8, title="star: a winner", title_fontsize=8)
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _spans_orders(objective: Objective) -> bool:
    return not objective.function and MEASURES[objective.measure].log_axis
