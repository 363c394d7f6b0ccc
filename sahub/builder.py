"""From configuration to a stack: finds methods by name, checks their fields, and says where and what when it cannot."""

import difflib
import importlib
import importlib.metadata
import pkgutil
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields, is_dataclass
from typing import Any

import sahub.methods
from sahub.errors import ConfigError
from sahub.protocols import Geometry, Stage
from sahub.sizes import Density, check_density, needs_budget
from sahub.stack import Stack, StackState, select

__all__ = ["Geometry", "Stack", "StackState", "build_stack", "method", "method_names", "register_method", "select"]

_GROUP = "sahub.methods"
_registered: dict[str, type[Stage]] = {}


def build_stack(
    stages: Sequence[Mapping[str, Any]] | Mapping[str, Mapping[str, Any] | None],
    *,
    density: Density | None = None,
    address: str = "builder.stages",
) -> Stack:
    """A stack from [{"name": "sink", "sink_size": 4}, ...] or label -> fields, in order; `method` defaults to label.

    density  the budget that `of_budget` sizes are shares of; default: the density of the last stage that has one
    address  where the stages stand in the configuration, for error messages

    Raises ConfigError as `address.label.field=value: what must hold`.
    """
    named = _labelled(stages, address)
    if not named:
        raise ConfigError(f"{address}: must name at least one stage; methods: {', '.join(method_names())}")
    built = [_stage(label, written, address) for label, written in named]
    if density is None:
        density = next((stage.budget for stage in reversed(built) if stage.budget is not None), None)
    else:
        check_density("density", density)
    for (label, _), stage in zip(named, built, strict=True):
        for field in fields(stage):
            if density is None and needs_budget(getattr(stage, field.name)) and field.name != "select":
                raise ConfigError(
                    f"{address}.{label}.{field.name}={getattr(stage, field.name)}: "
                    "of_budget needs a density: of the objective, or of a stage of this stack"
                )
    samplers = [label for (label, _), stage in zip(named, built, strict=True) if stage.samples]
    if len(samplers) > 1:
        raise ConfigError(f"{address}: {', '.join(samplers)}: at most one stage of a stack may sample")
    return Stack(tuple(built), density)


def _labelled(stages: object, address: str) -> list[tuple[str, dict[str, Any]]]:
    """(label, fields) pairs of both forms, fields with a `method`."""
    if isinstance(stages, Mapping):
        return [
            (str(label), {"method": str(label), **_mapping(written or {}, f"{address}.{label}")})
            for label, written in stages.items()
        ]
    if isinstance(stages, (str, bytes)) or not isinstance(stages, Iterable):
        raise ConfigError(f"{address}={stages}: must be a list of stages or a mapping from label to fields")
    pairs = []
    for number, item in enumerate(stages):
        written = _mapping(item, f"{address}[{number}]")
        label = written.pop("name", written.get("method"))
        if label is None:
            raise ConfigError(f"{address}[{number}]={written}: needs a name; methods: {', '.join(method_names())}")
        pairs.append((str(label), {"method": str(label), **written}))
    return pairs


def _mapping(written: object, address: str) -> dict[str, Any]:
    if not isinstance(written, Mapping):
        raise ConfigError(f"{address}={written}: must be a mapping from field to value")
    return {str(key): value for key, value in written.items()}


def _stage(label: str, written: dict[str, Any], address: str) -> Stage:
    """One validated stage."""
    here = f"{address}.{label}"
    values = dict(written)
    name = values.pop("method")
    cls = method(str(name), here if name == label else f"{here}.method={name}")
    known = [field.name for field in fields(cls) if field.init]
    for key in values:
        if key not in known:
            raise ConfigError(
                f"{here}.{key}: unknown field;{_did_you_mean(key, known)} fields: {', '.join(known) or 'none'}"
            )
    for field in fields(cls):
        if field.init and field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            unit = field.metadata.get("unit")
            raise ConfigError(f"{here}.{field.name}: must be set{f' ({unit})' if unit else ''}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{here}.{error}") from error


def _did_you_mean(word: str, choices: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, choices, n=1)
    return f" did you mean {close[0]}?" if close else ""


def method_names() -> list[str]:
    """Every method that can be named: of sahub.methods, of other packages' entry points, registered ones."""
    own = [module.name for module in pkgutil.iter_modules(sahub.methods.__path__)]
    found = [point.name for point in importlib.metadata.entry_points(group=_GROUP)]
    return sorted({*own, *found, *_registered})


def method(name: str, address: str | None = None) -> type[Stage]:
    """The class of a method; looked for in sahub.methods, entry points `sahub.methods`, then registered ones."""
    address = f"method={name}" if address is None else address
    if name in {module.name for module in pkgutil.iter_modules(sahub.methods.__path__)}:
        module = importlib.import_module(f"sahub.methods.{name}")
        wanted = name.replace("_", "")
        found: type[Stage] = next(x for x in vars(module).values() if _is_method(x) and x.__name__.lower() == wanted)
        return found
    for point in importlib.metadata.entry_points(group=_GROUP, name=name):
        try:
            loaded: type[Stage] = point.load()
        except (ImportError, AttributeError) as error:
            raise ConfigError(f"{address}: its entry point {point.value} cannot be loaded: {error}") from error
        if not _is_method(loaded):
            raise ConfigError(f"{address}: its entry point {point.value} is not a Stage dataclass")
        return loaded
    if name in _registered:
        return _registered[name]
    known = method_names()
    raise ConfigError(f"{address}: unknown method;{_did_you_mean(name, known)} methods: {', '.join(known)}")


def _is_method(candidate: object) -> bool:
    return isinstance(candidate, type) and issubclass(candidate, Stage) and is_dataclass(candidate)


def register_method(cls: type[Stage], name: str | None = None) -> type[Stage]:
    """Make a Stage dataclass known by `name` (default: its class name in snake case); returns it, so it decorates."""
    name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    if not _is_method(cls):
        raise ConfigError(f"register_method({cls!r}): must be a dataclass derived from sahub.protocols.Stage")
    if name in method_names() and _registered.get(name) is not cls:
        raise ConfigError(f"register_method(name={name}): the name is taken")
    _registered[name] = cls
    return cls
