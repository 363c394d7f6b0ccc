"""Benchmarks of other packages: modules that their entry points `sahub.benchmarks` name.

Such a module has `BENCHMARK`, a sahub.scores.benchmark.Benchmark, and may have `load` and `missing` as those of
sahub.tasks; without them its data are files of ready prompts.
"""

from functools import cache
from importlib.metadata import entry_points
from types import ModuleType
from typing import Any

from sahub.errors import ConfigError

GROUP = "sahub.benchmarks"


def names() -> list[str]:
    """Every benchmark that another package brings."""
    return sorted({point.name for point in entry_points(group=GROUP)})


@cache
def module_of(benchmark: str) -> ModuleType | None:
    """The module of a benchmark that another package brings; None where none does.

    Raises ConfigError for an entry point that cannot be loaded, or whose module has no scores.
    """
    for point in entry_points(group=GROUP, name=benchmark):
        address = f"task.benchmark={benchmark}: its entry point {point.value}"
        try:
            found: Any = point.load()
        except Exception as error:
            raise ConfigError(f"{address} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(found, ModuleType) or not hasattr(found, "BENCHMARK"):
            raise ConfigError(f"{address} must be a module with BENCHMARK, a sahub.scores.benchmark.Benchmark")
        return found
    return None
