"""Which fields of a builder matter: their importances, and the measure along each."""

from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from sahub.report.plots import Marks, Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, who

PLACE = 5
TITLE = "Importances and slices"
FOLDED = True
IMPORTANCES = (
    "Share of each free field in what separates the best tenth of the trials from the others (PED-ANOVA of Optuna); "
    "fields that only some trials have are left out."
)
SLICES = "The measure of every complete trial along each field that was searched."
FEWEST = 6  # trials that say something


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    bars, slices = [], []
    for cell in shown.cells:
        found = [trial for trial in cell.trials if trial["state"] == "complete"]
        found = [trial for trial in found if trial["fidelity"] == found[0]["fidelity"] and trial["value"] is not None]
        points = [_point(trial["overrides"]) for trial in found]
        title, values = f"{who(cell.row)}, {cell.row['task']}", [trial["value"] for trial in found]
        slices += _slices(cell, title, points, values, shown.colours[cell.row["builder"]])
        shares = importances(points, values) if len(found) >= FEWEST else {}
        if shares:
            marks = Marks(name=title, x=list(shares), y=list(shares.values()), style="bar")
            bars.append(Panel(title=title, x="importance", y="field", marks=[marks]))
    return [
        Plot(name="importances", about=IMPORTANCES, panels=bars),
        Plot(name="slices", about=SLICES, panels=slices),
    ]


def importances(points: Sequence[Mapping[str, Any]], values: Sequence[float]) -> dict[str, float]:
    """The importance of every field that all points have and that differs among them; the largest last."""
    import optuna  # a second, which only pages pay

    fields = [name for name in points[0] if all(name in point for point in points)]
    fields = [name for name in fields if len({point[name] for point in points}) > 1]
    if len(fields) < 2:
        return {}
    spaces = {name: _distribution([point[name] for point in points]) for name in fields}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study()
    study.add_trials(
        optuna.trial.create_trial(
            params={name: point[name] for name in fields}, distributions=spaces, value=value
        )
        for point, value in zip(points, values, strict=True)
    )  # fmt: skip
    evaluator = optuna.importance.PedAnovaImportanceEvaluator()
    shares = optuna.importance.get_param_importances(study, evaluator=evaluator)
    return dict(sorted(shares.items(), key=lambda pair: pair[1]))


def _distribution(values: Sequence[Any]) -> Any:
    from optuna.distributions import CategoricalDistribution, FloatDistribution  # with optuna

    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
        return FloatDistribution(min(values), max(values))
    return CategoricalDistribution(list(dict.fromkeys(values)))


def _point(overrides: Sequence[str]) -> dict[str, Any]:
    split = (item.removeprefix("builder.stages.").partition("=") for item in overrides)
    values = {name: yaml.safe_load(value) for name, _, value in split}
    plain = int | float | str | bool
    return {name: value if isinstance(value, plain) else str(value) for name, value in values.items()}


def _slices(
    cell: CellFiles, title: str, points: Sequence[Mapping[str, Any]], values: Sequence[float], colour: int
) -> list[Panel]:
    panels = []
    for name in dict.fromkeys(name for point in points for name in point):
        along = [(point[name], value) for point, value in zip(points, values, strict=True) if name in point]
        if len({x for x, _ in along}) > 1:
            marks = Marks(name=title, x=[x for x, _ in along], y=[y for _, y in along], style="faint", colour=colour)
            panels.append(Panel(title=title, x=name, y=cell.row["measure"], marks=[marks]))
    return panels
