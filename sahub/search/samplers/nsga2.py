"""A genetic algorithm over several goals: the value and the density, or what a frontier spans."""

import optuna

from sahub.config.settings import Settings


def study(settings: Settings, goals: int) -> optuna.Study:
    """An empty study that minimises so many numbers, two at least."""
    population = settings.sampler.population_size or max(2, settings.search.batch)
    return optuna.create_study(
        directions=["minimize"] * max(2, goals),
        sampler=optuna.samplers.NSGAIISampler(population_size=population, seed=settings.search.seed),
    )
