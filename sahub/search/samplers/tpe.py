"""A model of what was good: Optuna's tree-structured Parzen estimator."""

import optuna

from sahub.config.settings import Settings


def study(settings: Settings, goals: int) -> optuna.Study:
    """An empty study that minimises so many numbers."""
    sampler, search = settings.sampler, settings.search
    return optuna.create_study(
        directions=["minimize"] * goals,
        sampler=optuna.samplers.TPESampler(
            seed=search.seed,
            n_startup_trials=search.batch if sampler.n_startup_trials is None else sampler.n_startup_trials,
            multivariate=sampler.multivariate,
            constant_liar=True,
        ),
    )
