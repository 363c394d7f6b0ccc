"""What is found by its name: families of our own modules, and what other packages add to them by entry points.

Every module of ours that no import statement names is imported here. Only the methods and the tasks stand above those
who ask for them: whoever reads a configuration or loads examples knows of none.
"""

from dataclasses import is_dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from sahub.errors import ConfigError, did_you_mean
from sahub.files.package import ROOT

FAMILIES = {  # folder of the package -> who names its modules
    "cli/commands": "the command line",
    "doctor/checks": "the doctor, which runs all of one subject",
    "fidelities": "search.fidelity, and every measure",
    "measures": "objective.measure",
    "methods": "the stages of builders; entry points sahub.methods of other packages, register_method",
    "report/sections": "the report, which has all of them",
    "search/samplers": "sampler.name",
    "tasks": "task.benchmark; entry points sahub.benchmarks of other packages",
    "trackers": "tracker.name",
}
METHODS, BENCHMARKS = "sahub.methods", "sahub.benchmarks"  # groups of entry points
_registered: dict[str, type] = {}


def members(family: str) -> list[str]:
    """The names of a family's modules, sorted, none of them imported."""
    assert family in FAMILIES, family
    found = [module.name for module in iter_modules([str(ROOT / family)])]
    return sorted(name for name in found if not name.startswith("_"))


def member(family: str, name: str) -> ModuleType:
    """A module of a family."""
    assert family in FAMILIES, family
    return import_module(f"sahub.{family.replace('/', '.')}.{name}")


def all_of(family: str) -> list[ModuleType]:
    """Every module of a family, by its PLACE where it has one, then by name."""
    found = [member(family, name) for name in members(family)]
    return sorted(found, key=lambda module: getattr(module, "PLACE", 0))


def benchmark_names() -> list[str]:
    """Every benchmark that another package brings: its entry points `sahub.benchmarks`."""
    return sorted({point.name for point in entry_points(group=BENCHMARKS)})


@cache
def benchmark(name: str) -> ModuleType | None:
    """The module of a benchmark that another package brings; None where none does.

    Such a module has `BENCHMARK`, a sahub.scores.benchmark.Benchmark, and may have `load` and `missing` as those of
    sahub.tasks; without them its data are files of ready prompts. Raises ConfigError for an entry point that cannot be
    loaded, or whose module has no scores.
    """
    for point in entry_points(group=BENCHMARKS, name=name):
        address = f"task.benchmark={name}: its entry point {point.value}"
        try:
            found: Any = point.load()
        except Exception as error:
            raise ConfigError(f"{address} cannot be loaded: {type(error).__name__}: {error}") from error
        if not isinstance(found, ModuleType) or not hasattr(found, "BENCHMARK"):
            raise ConfigError(f"{address} must be a module with BENCHMARK, a sahub.scores.benchmark.Benchmark")
        return found
    return None


def method_names() -> list[str]:
    """Every method that can be named: of sahub.methods, of other packages' entry points, registered ones."""
    return sorted({*members("methods"), *(point.name for point in entry_points(group=METHODS)), *_registered})


def method(name: str, address: str) -> type:
    """The class of a method; looked for in sahub.methods, entry points `sahub.methods`, then registered ones.

    Raises ConfigError, which begins with the address, where there is none.
    """
    if name in members("methods"):
        wanted = name.replace("_", "")
        values = vars(member("methods", name)).values()
        own: type = next(one for one in values if is_method(one) and one.__name__.lower() == wanted)
        return own
    for point in entry_points(group=METHODS, name=name):
        try:
            loaded = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{address}: its entry point {point.value} cannot be loaded: {error}") from error
        if not is_method(loaded):
            raise ConfigError(f"{address}: its entry point {point.value} is not a Stage dataclass")
        found: type = loaded
        return found
    if name in _registered:
        return _registered[name]
    known = method_names()
    raise ConfigError(f"{address}: unknown method{did_you_mean(name, known) or ';'} methods: {', '.join(known)}")


def is_method(candidate: Any) -> bool:
    """Whether something is a dataclass that adds keys: what a stage is, for those who know no mathematics."""
    return isinstance(candidate, type) and is_dataclass(candidate) and callable(getattr(candidate, "add", None))


def register(cls: type, name: str) -> None:
    """Make a method known by a name. Raises ConfigError for one that is taken."""
    if name in method_names() and _registered.get(name) is not cls:
        raise ConfigError(f"register_method(name={name}): the name is taken")
    _registered[name] = cls
