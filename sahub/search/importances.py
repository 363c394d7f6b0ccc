"""Which free fields moved the value: each one's share of what a search saw it move."""

from collections.abc import Sequence

import optuna
from optuna.importance import PedAnovaImportanceEvaluator
from optuna.trial import FrozenTrial

LEAST = 8  # complete trials that say something


def importances(trials: Sequence[FrozenTrial]) -> dict[str, float]:
    """Field -> share of 1, the largest first; nothing where there are too few complete trials, or no field differs.

    How far the best tenth of the trials, and two at least, prefer other values of a field than all do: nothing is
    drawn. Of fields that every complete trial has.

    Source   Watanabe, Bansal and Hutter 2023, arXiv:2304.10255, as Optuna computes it
    """
    complete = [trial for trial in trials if trial.state == optuna.trial.TrialState.COMPLETE]
    varying = {
        name
        for name in (complete[0].params if complete else ())
        if all(name in trial.params for trial in complete) and len({repr(one.params[name]) for one in complete}) > 1
    }
    if len(complete) < LEAST or not varying:
        return {}
    study = optuna.create_study()
    study.add_trials(complete)
    found = PedAnovaImportanceEvaluator().evaluate(study, params=sorted(varying))
    total = sum(found.values())
    return {name: share / total for name, share in found.items()} if total > 0 else {}
