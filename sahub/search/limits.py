"""Upper bounds that rule points of a space out before any work: of index bits, and functions of a person's own."""

from collections.abc import Callable, Mapping
from typing import Any

from sahub.attention.call import Geometry
from sahub.attention.stack import Stack
from sahub.config.cell import Cell
from sahub.errors import ConfigError, Infeasible
from sahub.search.objective import function_of


def limits_of(cell: Cell) -> dict[str, float]:
    """The upper bounds of index bits by their address: the builder's own, and the objective's target.

    A target does not bind the yardstick `dense`. Raises ConfigError for an unknown quantity or a bound that is no
    number.
    """
    limits: dict[str, Any] = dict(cell.builder.get("limits") or {})
    limits.pop("check", None)
    for name, bound in limits.items():
        if name != "aux_bits":
            raise ConfigError(f"builder.limits.{name}: unknown; limits: aux_bits, check")
        if isinstance(bound, bool) or not isinstance(bound, int | float) or bound < 0:
            raise ConfigError(f"builder.limits.{name}={bound}: must be at least 0 (bits per key and KV head)")
    found = {f"builder.limits.{name}": bound for name, bound in limits.items()}
    target = cell.settings.objective.aux_bits
    return found if target is None or cell.choices.builder == "dense" else {**found, "objective.aux_bits": target}


def own_limit(cell: Cell) -> Callable[[Stack, Geometry, int], None]:
    """What raises Infeasible where the builder's own `limits.check` refuses a stack over so many keys.

    Its function is called with stack, geometry and number of keys, and what else stands beside `_target_`; a text it
    gives, or False, refuses. Raises ConfigError where it cannot be imported.
    """
    given = (cell.builder.get("limits") or {}).get("check")
    if given is None:
        return lambda stack, geometry, num_keys: None
    if not isinstance(given, Mapping):
        raise ConfigError(f"builder.limits.check={given}: must be a mapping with _target_, the name of a function")
    target = given.get("_target_")
    function = function_of("builder.limits.check", target, cell.config_dir)
    others = {name: value for name, value in given.items() if name != "_target_"}

    def check(stack: Stack, geometry: Geometry, num_keys: int) -> None:
        try:
            said = function(stack, geometry, num_keys, **others)
        except Exception as error:
            raise ConfigError(f"builder.limits.check={target}: {type(error).__name__}: {error}") from error
        if said is False or isinstance(said, str):
            raise Infeasible(f"builder.limits.check={target}: {said or 'refused'}", 1.0)

    return check


def check_limits(stack: Stack, limits: Mapping[str, float], geometry: Geometry, num_keys: int) -> None:
    """Raise Infeasible for a stack above an upper bound, the tightest; ConfigError for one that the model cannot have.

    An Infeasible says how far above the bound it is: `excess`, a share of the bound.
    """
    stack.check(geometry)
    needed = stack.aux_bits(geometry, num_keys)
    for name, bound in sorted(limits.items(), key=lambda item: item[1]):
        if needed > bound + 1e-9:
            raise Infeasible(
                f"{name}={bound:g}: this point needs {needed:.4g} bits per key and KV head",
                (needed - bound) / (bound or 1),
            )
