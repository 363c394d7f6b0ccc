"""Points at random."""

import optuna

from sahub.config.settings import Settings


def study(settings: Settings) -> optuna.Study:
    """An empty study that minimises the value."""
    return optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=settings.search.seed))
