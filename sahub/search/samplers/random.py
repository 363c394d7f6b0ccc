"""Points at random."""

import optuna

from sahub.config.settings import Settings


def study(settings: Settings, goals: int) -> optuna.Study:
    """An empty study that minimises so many numbers."""
    return optuna.create_study(
        directions=["minimize"] * goals, sampler=optuna.samplers.RandomSampler(seed=settings.search.seed)
    )
