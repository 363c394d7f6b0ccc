"""One search for several tasks: which cells share one, means over tasks, and the study as one of them sees it."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean
from typing import Any

from sahub.config.cell import Cell
from sahub.engine.requests import Request
from sahub.search.trial import Decision, Study, Trial
from sahub.timing.costs import StepCosts


@dataclass(frozen=True)
class Part:
    """A task that a search is made for, with its prepared requests: those of trials, and those that decide then.

    costs  predicts the seconds of a step, where the objective reads them
    """

    cell: Cell
    requests: Sequence[Request]
    deciding: Sequence[Request] = ()
    costs: StepCosts | None = None


def search_key(cell: Cell) -> str:
    """Equal for cells that one search is made for: with `search.scope=global` those that differ in their task alone."""
    if cell.settings.search.scope == "task":
        return repr(id(cell))
    # The protocol as it was composed: what it takes from the task differs with it.
    settings = {name: value for name, value in asdict(cell.settings).items() if name not in ("task", "protocol")}
    settings["protocol"] = cell.composed["protocol"]
    groups = {group: choice for group, choice in cell.groups.items() if group != "task"}
    typed = [item for item in cell.overrides if item.partition("=")[0] != "task"]
    return repr((settings, groups, typed, cell.pins, cell.builder))


def over_tasks(found: Sequence[tuple[str, Trial]]) -> Trial:
    """One trial of a point's trials, a task each: means, the largest excess; failed where one of them is.

    aux_bits is the largest, as within a task.
    """
    trials = [trial for _, trial in found]
    spent = {"seconds": sum(trial.seconds for trial in trials), "contexts": sum(trial.contexts for trial in trials)}
    for task, trial in found:
        if trial.value is None:
            return replace(trial, reason=f"task {task}: {trial.reason}", **spent)  # type: ignore[arg-type]
    shared = [name for name in trials[0].measures if all(name in trial.measures for trial in trials)]
    measures = {name: fmean(trial.measures[name] for trial in trials) for name in shared}
    measures["aux_bits"] = max(trial.measures["aux_bits"] for trial in trials)
    tasks: dict[str, dict[str, Any]] = {
        task: {"value": trial.value, "feasible": trial.feasible, **trial.measures} for task, trial in found
    }
    return replace(
        trials[0],
        feasible=all(trial.feasible for trial in trials),
        value=fmean(trial.value for trial in trials if trial.value is not None),
        measures=measures,
        spent=fmean(trial.spent for trial in trials),
        excess={name: max(trial.excess[name] for trial in trials) for name in trials[0].excess},
        tasks=tasks,
        **spent,  # type: ignore[arg-type]
    )


def _seen(decision: Decision, own: Callable[[Trial], Trial]) -> Decision:
    return replace(decision, winner=own(decision.winner), default=own(decision.default))


def seen_from(study: Study, task: str) -> Study:
    """The study with the value and the measures of one of its tasks in every trial; feasible still means in each."""

    def own(trial: Trial) -> Trial:
        there = dict(trial.tasks.get(task, {}))
        if not there:
            return trial
        value, _ = there.pop("value"), there.pop("feasible")
        return replace(trial, value=value, measures=there)

    return replace(
        study,
        trials=tuple(map(own, study.trials)),
        best=None if study.best is None else own(study.best),
        default=own(study.default),
        generated=None if study.generated is None else own(study.generated),
        decision=None if study.decision is None else _seen(study.decision, own),
        frontier={
            name: replace(found, trial=own(found.trial), checked=own(found.checked))
            for name, found in study.frontier.items()
        },
    )
