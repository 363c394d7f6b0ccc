"""How accurate each configuration was, with intervals."""

import io
from collections.abc import Sequence
from typing import Any

from sahub.report.shown import Shown
from sahub.results.cell_result import CellResult

PLACE = 3
ALT = "accuracy on validation examples with intervals"


def html(shown: Shown) -> str:
    """See sahub.report.sections."""
    return shown.image("accuracy", ALT)


def picture(found: Sequence[CellResult]) -> bytes | None:
    """A PNG of validated accuracies with 95 % intervals, one panel per task and length; None where none was validated.

    Dots: the configuration that was validated; rings: the builder's default beside a winner; band: dense.
    """
    panels: dict[tuple[str, str, int], list[CellResult]] = {}
    for result in found:
        if result.figures and "dense_score" in result.figures:
            cell = result.cell
            key = cell.choices.model, cell.choices.task, cell.settings.validate.max_context_length
            panels.setdefault(key, []).append(result)
    if not panels:
        return None
    from matplotlib.figure import Figure  # half a second, for runs that draw nothing

    tallest = max(map(len, panels.values()))
    figure = Figure(figsize=(0.6 + 3.6 * len(panels), 1.6 + 0.34 * tallest), layout="constrained")
    axes = figure.subplots(1, len(panels), squeeze=False)[0]
    for axis, ((model, task, length), results) in zip(axes, panels.items(), strict=True):
        dense = results[0].figures["dense_score"]
        if dense["low"] is not None:
            axis.axvspan(100 * dense["low"], 100 * dense["high"], color="black", alpha=0.1, linewidth=0)
        axis.axvline(100 * dense["mean"], color="black", linewidth=1, label="dense")
        for place, result in enumerate(results):
            _dot(axis, place, result.figures["sparse_score"], marker="o", color="tab:blue", zorder=3)
            if "default_score" in result.figures:
                _dot(axis, place, result.figures["default_score"], marker="o", color="tab:orange", fillstyle="none")
        axis.set_yticks(range(len(results)), [_label(result, results) for result in results])
        axis.set_ylim(len(results) - 0.4, -0.6)
        axis.set(title=f"{model}, {task}\n{length:,} tokens", xlabel="accuracy, % [95 % interval]", xlim=(-3, 103))
    image = io.BytesIO()
    figure.savefig(image, format="png", dpi=110)
    return image.getvalue()


def _label(result: CellResult, beside: Sequence[CellResult]) -> str:
    """The builder, and the objective where these differ."""
    choices = result.cell.choices
    several = len({other.cell.choices.objective for other in beside}) > 1
    return f"{choices.builder}, {choices.objective}" if several else choices.builder


def _dot(axis: Any, place: int, score: Any, **style: Any) -> None:
    low, high = score["low"], score["high"]
    mean = 100 * score["mean"]
    reach = None if low is None or high is None else [[mean - 100 * low], [100 * high - mean]]
    axis.errorbar([mean], [place], xerr=reach, linestyle="none", capsize=2.5, markersize=6, **style)
