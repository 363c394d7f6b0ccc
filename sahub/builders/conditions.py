"""What bounds a free field beside its own range: `when`, the values of other fields; `in_budget`, the budget."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution

from sahub.attention.budgets import is_count
from sahub.errors import ConfigError

Condition = dict[str, list[Any]]  # another leaf -> the values of it with which a leaf applies


def ordered(
    whens: Mapping[str, Any],
    columns: Mapping[str, Sequence[Any] | None],
    values: Mapping[str, Any],
    stages: Mapping[str, Any],
) -> dict[str, Condition]:
    """Each leaf with its condition, after the leaves that the condition asks about.

    `columns` are the values that each free leaf may take (None: a continuous range), `values` the builder's own.
    What a condition asks of a field that is not free is answered here: where it does not hold, the leaf is left out.
    Raises ConfigError for a field that is not there, for a value that it never takes, and for a circle.
    """
    found: dict[str, Condition] = {}
    out: set[str] = set()

    def visit(leaf: str, above: tuple[str, ...]) -> None:
        if leaf in above:
            raise ConfigError(f"builder.search.{leaf}.when: waits for itself ({' -> '.join([*above, leaf])})")
        if leaf in found or leaf in out:
            return
        condition: Condition = {}
        for other, allowed in _flat(f"builder.search.{leaf}.when", whens[leaf]):
            address = f"builder.search.{leaf}.when.{other}"
            if other in whens:
                visit(other, (*above, leaf))
                _check(address, other, allowed, columns[other], values[other])
            if other in found:
                condition[other] = allowed
            elif look_up(stages, other, address) not in allowed:
                out.add(leaf)
        if leaf not in out:
            found[leaf] = condition

    for leaf in whens:
        visit(leaf, ())
    return found


def fitting(address: str, settings: Mapping[str, Any], budget_tokens: int | None) -> CategoricalDistribution:
    """The choices of which the budget holds `in_budget` at least: with fewer pages there is nothing to choose from.

    The least of them where it holds too few of any. Raises ConfigError for what has no sizes in tokens to choose from.
    """
    least, choices = settings["in_budget"], settings.get("choices", [])
    if not is_count(least) or least < 1 or not choices or not all(map(is_count, choices)):
        raise ConfigError(f"{address}.in_budget={least}: must be at least 1, beside choices of whole tokens")
    held = [one for one in choices if budget_tokens is None or least * one <= budget_tokens]
    return CategoricalDistribution(held or [min(choices)])


def look_up(stages: Mapping[str, Any], leaf: str, address: str) -> Any:
    """The value of a stage field. Raises ConfigError, naming `address`, where there is none."""
    node: Any = stages
    for name in leaf.split("."):
        if not isinstance(node, Mapping) or name not in node:
            raise ConfigError(f"{address}: builder.stages has no {leaf}, so there is nothing to search")
        node = node[name]
    return node


def _flat(address: str, when: Any) -> Iterator[tuple[str, list[Any]]]:
    """(leaf, values) of a condition, written `quest.select: [a]` or `quest: {select: [a]}`; one value needs no list."""
    if not isinstance(when, Mapping):
        raise ConfigError(f"{address}={when}: must be a mapping of fields to values, such as {{quest.page_size: [16]}}")
    for name, node in when.items():
        if isinstance(node, Mapping):
            yield from ((f"{name}.{below}", values) for below, values in _flat(f"{address}.{name}", node))
        else:
            yield str(name), list(node) if isinstance(node, list | tuple) else [node]


def _check(address: str, other: str, allowed: Sequence[Any], column: Sequence[Any] | None, own: Any) -> None:
    if column is None:
        raise ConfigError(f"{address}: {other} is a continuous range; it must have choices, whole numbers or a step")
    for value in allowed:
        if value not in column and value != own:
            known = ", ".join(map(str, column[:20]))
            raise ConfigError(f"{address}={value}: {other} is never that; it must be one of {known}")
