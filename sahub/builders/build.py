"""From configuration to a stack: finds methods by name, checks their fields, and says where and what when it cannot."""

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import MISSING, fields
from typing import Any

from torch import Tensor

from sahub import extensions
from sahub.attention.budgets import Density, check_density, needs_budget
from sahub.attention.call import Geometry
from sahub.attention.rows import rows_of
from sahub.attention.selection import Selection
from sahub.attention.stack import Stack, StackState
from sahub.attention.stage import Stage
from sahub.errors import ConfigError, did_you_mean
from sahub.extensions import method_names

__all__ = ["Geometry", "Stack", "StackState", "build_stack", "method", "method_names", "register_method", "select"]


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
                f"{here}.{key}: unknown field{did_you_mean(key, known) or ';'} fields: {', '.join(known) or 'none'}"
            )
    for field in fields(cls):
        if field.init and field.name not in values and field.default is MISSING and field.default_factory is MISSING:
            unit = field.metadata.get("unit")
            raise ConfigError(f"{here}.{field.name}: must be set{f' ({unit})' if unit else ''}")
    try:
        return cls(**values)
    except ConfigError as error:
        raise ConfigError(f"{here}.{error}") from error


def method(name: str, address: str | None = None) -> type[Stage]:
    """The class of a method by its name, see sahub.extensions. Raises ConfigError, which begins with the address."""
    address = f"method={name}" if address is None else address
    found = extensions.method(name, address)
    if not issubclass(found, Stage):
        raise ConfigError(f"{address}: {found.__module__}.{found.__name__} is not a Stage dataclass")
    return found


def register_method(cls: type[Stage], name: str | None = None) -> type[Stage]:
    """Make a Stage dataclass known by `name` (default: its class name in snake case); returns it, so it decorates."""
    name = name or re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", cls.__name__).lower()
    if not (isinstance(cls, type) and issubclass(cls, Stage) and extensions.is_method(cls)):
        raise ConfigError(f"register_method({cls!r}): must be a dataclass derived from sahub.attention.stage.Stage")
    extensions.register(cls, name)
    return cls


def select(
    stack: Stack,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    layer: int = 0,
    seed: int = 0,
    example: int = 0,
    step: int = 0,
) -> Selection:
    """What a stack selects for the rows q [b, h, q, d] at the end of k [b, g, k, d], v [b, g, k, dv], from scratch.

    The keys before the rows are the prefix: what an index learns from one (centroids, channels), it learns from them.

    mask  None | bool [b, k] (True = valid key) | bool [b, 1, q, k] (then a key is valid if any row may see it)
    """
    rows_of(q, k, mask)  # shapes first
    state = stack.new_state(layer=layer, seed=seed, example=example)
    valid = mask.any(dim=2)[:, 0] if mask is not None and mask.dim() == 4 else mask
    prefix = k.shape[2] - q.shape[2]
    for part in (slice(prefix), slice(prefix, None)):
        state.append(k[:, :, part], v[:, :, part], None if valid is None else valid[:, part])
        if part.stop == prefix:
            state.freeze()
    return state.select(q, k, v, mask=mask, scale=scale, softcap=softcap, step=step)
