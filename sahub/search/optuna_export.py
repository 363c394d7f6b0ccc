"""A cell's trials as a file that optuna-dashboard opens. It is written only, never read: a search resumes by itself."""

from pathlib import Path
from typing import Any

import optuna
import sqlalchemy
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import FrozenTrial, TrialState

from sahub.builders.space import Space, rounded
from sahub.files.atomic import write_bytes
from sahub.search.importances import importances
from sahub.search.trial import Study, Trial

STATES = {
    "complete": TrialState.COMPLETE,
    "pruned": TrialState.PRUNED,
    "rejected": TrialState.PRUNED,
    "failed": TrialState.FAIL,
}


def write_database(path: Path, name: str, space: Space, study: Study) -> Path:
    """All trials of a study as SQLite, one Optuna study per fidelity: `{name}_{fidelity}`. Whole or not at all."""
    memory = optuna.storages.RDBStorage(
        "sqlite:///:memory:",
        engine_kwargs={"poolclass": sqlalchemy.pool.StaticPool, "connect_args": {"check_same_thread": False}},
    )
    for fidelity in dict.fromkeys(trial.fidelity for trial in study.trials):
        kept = optuna.create_study(study_name=f"{name}_{fidelity}", storage=memory)
        kept.add_trials([_frozen(trial, space) for trial in study.trials if trial.fidelity == fidelity])
    raw = memory.engine.raw_connection()
    try:
        return write_bytes(path, raw.driver_connection.serialize())
    finally:
        raw.close()
        memory.engine.dispose()


def importances_of(space: Space, study: Study) -> dict[str, float]:
    """How much each free field moved the value of the trials, see `importances`."""
    points = [trial for trial in study.trials if trial.fidelity == study.trials[0].fidelity]
    return importances([_frozen(trial, space) for trial in points])


def _frozen(trial: Trial, space: Space) -> FrozenTrial:
    known = {leaf: (value, _holding(space.free[leaf], value)) for leaf, value in trial.point.items()}
    inside = {leaf: (value, held) for leaf, (value, held) in known.items() if held is not None}
    found = optuna.trial.create_trial(
        state=STATES[trial.state],
        value=trial.value,
        params={leaf: _told(value, held) for leaf, (value, held) in inside.items()},
        distributions={leaf: held for leaf, (_, held) in inside.items()},
        user_attrs={name: value for name, value in _told_of(trial).items() if value not in ("", None, {})},
        intermediate_values=dict(trial.rungs),
    )
    for name, excess in trial.excess.items():
        found.set_constraint(name, excess)
    return found


def _told_of(trial: Trial) -> dict[str, Any]:
    """What stands beside a trial: few attributes, as each costs milliseconds."""
    return {
        "state": trial.state,
        "reason": trial.reason,
        "overrides": " ".join(trial.overrides),
        "feasible": trial.feasible,
        "seconds": round(trial.seconds, 3),
        "density": trial.measures.get("density"),
        "aux_bits": trial.measures.get("aux_bits"),
        "measures": dict(trial.measures),
        "tasks": {task: dict(there) for task, there in trial.tasks.items()},
    }


def _told(value: Any, held: BaseDistribution) -> Any:
    """The value that was run: that of the overrides."""
    return value if isinstance(held, CategoricalDistribution) else rounded(value)


def _holding(distribution: BaseDistribution, value: Any) -> BaseDistribution | None:
    """The distribution, wide enough for a default outside of the space; None where it can have no such value."""
    if isinstance(distribution, CategoricalDistribution):
        return distribution if value in distribution.choices else None
    assert isinstance(distribution, IntDistribution | FloatDistribution)
    if isinstance(value, bool) or not isinstance(value, int | float) or (distribution.log and value <= 0):
        return None
    low, high = min(distribution.low, rounded(value)), max(distribution.high, rounded(value))
    if isinstance(distribution, IntDistribution):
        return None if value != int(value) else IntDistribution(int(low), int(high), log=distribution.log)
    return FloatDistribution(low, high, log=distribution.log)
