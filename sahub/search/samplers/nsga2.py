"""A genetic algorithm over two goals, the value and the density."""

import optuna

from sahub.config.settings import Settings


def study(settings: Settings) -> optuna.Study:
    """An empty study that minimises the value and the density."""
    population = settings.sampler.population_size or max(2, settings.search.batch)
    return optuna.create_study(
        directions=["minimize", "minimize"],
        sampler=optuna.samplers.NSGAIISampler(population_size=population, seed=settings.search.seed),
    )
