"""Sizes and budgets: how many tokens a field means for a row with N valid keys. Every rounding is floor(f*N + 1e-6)."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias, TypeGuard

import torch
from torch import Tensor

from sahub.attention.rows import Rows, free_to_read
from sahub.errors import ConfigError

One: TypeAlias = int | float | Mapping[str, Any]
Size: TypeAlias = One | Sequence[One]  # the same in every layer, or one per layer
Density: TypeAlias = float | Sequence[float]

_SHARE_FIELDS = ("of_budget", "at_least", "at_most")


def check_size(name: str, size: object) -> None:
    """Raise ConfigError unless `size` is tokens (int), a share of the valid keys (float) or a share of the budget.

    A list has one of these per layer.
    """
    if is_list(size):
        _check_each(name, size, check_size, "a size")
    elif isinstance(size, Mapping):
        _check_share(name, size)
    elif is_count(size):
        if size < 0:
            raise ConfigError(f"{name}={size}: must be at least 0 tokens (an int), or a share in (0, 1] (a float)")
    elif not is_number(size) or not 0 < size <= 1:
        raise ConfigError(
            f"{name}={size}: must be tokens (an int >= 0), a share of the valid keys (a float in (0, 1]; 1.0 is all, "
            "1 is one token) or {of_budget: share of what is left, at_least: tokens, at_most: tokens}"
        )


def _check_each(name: str, values: Sequence[Any], check: Callable[[str, object], None], what: str) -> None:
    if not values:
        raise ConfigError(f"{name}=[]: must be {what}, or a list with one per layer")
    for layer, one in enumerate(values):
        if is_list(one):
            raise ConfigError(f"{name}[{layer}]={list(one)}: must be {what}; a list of a list says nothing")
        check(f"{name}[{layer}]", one)


def _check_share(name: str, size: Mapping[str, Any]) -> None:
    shown = dict(size)
    unknown = [key for key in size if key not in _SHARE_FIELDS]
    share = size.get("of_budget")
    if unknown or not is_number(share) or not 0 < share <= 1:
        raise ConfigError(
            f"{name}={shown}: must be {{of_budget: a share in (0, 1], at_least: tokens, at_most: tokens}}"
        )
    low, high = size.get("at_least", 1), size.get("at_most")
    if not is_count(low) or low < 0 or not (high is None or (is_count(high) and high >= max(low, 1))):
        raise ConfigError(f"{name}={shown}: at_least and at_most must be ints with 0 <= at_least <= at_most")


def is_count(value: object) -> TypeGuard[int]:
    """An int that is no bool."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: object) -> TypeGuard[int | float]:
    """An int or a float, no bool."""
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def is_list(value: object) -> TypeGuard[Sequence[Any]]:
    """A list or tuple: values of one layer each."""
    return isinstance(value, (list, tuple))


def needs_budget(size: object) -> bool:
    """Whether the size, or that of some layer, is a share of the stack's density."""
    return any(map(needs_budget, size)) if is_list(size) else isinstance(size, Mapping)


def check_density(name: str, density: object) -> None:
    """Raise ConfigError unless `density` is a share in (0, 1], or a list of them, one per layer."""
    if is_list(density):
        _check_each(name, density, check_density, "a share in (0, 1]")
    elif not is_number(density) or not 0 < density <= 1:
        raise ConfigError(f"{name}={density}: must be a share of the valid keys in (0, 1]")


def at_layer(density: Density | None, layer: int) -> float | None:
    """The density that holds at one layer."""
    if density is None or isinstance(density, (int, float)):
        return density
    if layer >= len(density):
        raise ConfigError(f"density={list(density)}: has no value for layer {layer}")
    return density[layer]


def share_of(share: float, num_valid: int) -> int:
    """floor(share * N + 1e-6) tokens, at least 1: a share above 0 never means nothing."""
    return min(num_valid, max(1, math.floor(share * num_valid + 1e-6)))


def for_layer(value: Any, layer: int) -> Any:
    """A field's value at one layer: that of the layer where the field is a list, or the mapping `select` holds one."""
    if isinstance(value, Mapping):
        return {key: for_layer(one, layer) for key, one in value.items()}
    return value[layer] if is_list(value) else value


def most_tokens(size: Size, num_keys: int, budget: float | None) -> int:
    """What `size` means at most for a row with num_keys valid keys, of which none are kept: without a sync."""
    if isinstance(size, Mapping):
        assert budget is not None, "build_stack demands a budget for of_budget sizes"
        whole = share_of(budget, num_keys)
        part = int(size["of_budget"] * whole + 1e-6)
        low, high = int(size.get("at_least", 1)), int(size.get("at_most") or part)
        return min(whole, max(low, min(part, high)))
    assert not isinstance(size, Sequence), "a state has the sizes of its own layer"
    return min(num_keys, int(size)) if is_count(size) else share_of(float(size), num_keys)


def row_tokens(size: Size, rows: Rows, budget: float | None, kept: Tensor) -> Tensor:
    """What `size` means for each row, never more than its valid keys: int64 [b or 1, h or 1, q].

    kept  keys that earlier stages keep, int64 [b or 1, h or 1, q]: a share of the budget is one of what they left of
          it, and never more than that, whatever at_least says
    """
    if (plain := of_single_row(rows, kept)) is not None:
        return torch.full((1, 1, 1), tokens_of(size, rows.num_keys, budget, plain))
    if isinstance(size, Mapping):
        assert budget is not None, "build_stack demands a budget for of_budget sizes"
        left = (row_share(budget, rows)[:, None] - kept).clamp(min=0)
        part = _floor(left, size["of_budget"]).clamp(size.get("at_least", 1), size.get("at_most"))
        return torch.minimum(part, left)
    assert not isinstance(size, Sequence), "a state has the sizes of its own layer"
    if is_count(size):
        return rows.counts.clamp(max=int(size))[:, None]
    return row_share(float(size), rows)[:, None]


def of_single_row(rows: Rows, numbers: Tensor) -> int | None:
    """The number of a single row that all heads share, as a plain one: tensors of one number are slow.

    None where there are several of them, or reading is not free.
    """
    known = rows.single is not None and numbers.numel() == 1 and free_to_read(numbers)
    return int(numbers) if known else None


def tokens_of(size: Size, num_valid: int, budget: float | None, kept: int) -> int:
    """`row_tokens` of one row with num_valid valid keys, of which `kept` are kept."""
    if isinstance(size, Mapping):
        assert budget is not None, "build_stack demands a budget for of_budget sizes"
        left = max(0, share_of(budget, num_valid) - kept)
        part = max(int(left * float(size["of_budget"]) + 1e-6), int(size.get("at_least", 1)))
        return min(part, int(size.get("at_most") or part), left)
    assert not isinstance(size, Sequence), "a state has the sizes of its own layer"
    return min(num_valid, int(size)) if is_count(size) else share_of(float(size), num_valid)


def row_share(share: float, rows: Rows) -> Tensor:
    """`share_of` for each row, int64 [b or 1, q]; a row without a valid key gets 0."""
    if rows.single is not None:
        return torch.full((1, 1), share_of(share, rows.single), device=rows.device)
    return torch.minimum(_floor(rows.counts, share).clamp(min=1), rows.counts)


def _floor(counts: Tensor, share: float) -> Tensor:
    return (counts.double() * share + 1e-6).floor().long()
