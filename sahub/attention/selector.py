"""How a scored stage chooses: a budget, a share of the softmax or a threshold, for each head or for heads together."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from sahub.attention.budgets import Density, Size, check_density, check_size
from sahub.errors import ConfigError

GROUPS = ("none", "union", "sum", "max")


@dataclass(frozen=True, kw_only=True)
class Selector:
    """How a scored stage chooses; exactly one of density, heavy_size, top_p and threshold is set.

    density     share of the valid keys kept once the stage is done: it fills up; scalar or one per layer. Keys that an
                earlier stage sampled count as kept, and again where this stage makes them certain: samplers come last
    heavy_size  what the stage adds: tokens (int), a share of the valid keys (float) or of the budget
    top_p       share in [0, 1] of the softmax mass of the scores; `mass` says of what: the residual or the total
    ties        of top_p: whether all that score as the last kept unit are kept too
    threshold   least logit (scaled) of a kept unit
    max_density  of top_p and threshold: share of the valid keys that is not exceeded once the stage is done
    min_units   pages whose keys are taken even where the budget holds fewer, unless nothing of it is left
    group       what query heads that share a KV head choose: none (each its own), sum or max of their scores (the same
                for all), union (each its own, and all attend to what any of them chose: up to G times the budget)
    """

    density: Density | None = None
    heavy_size: Size | None = None
    top_p: float | None = None
    ties: bool = False
    threshold: float | None = None
    mass: str = "residual"
    max_density: Density | None = None
    min_units: int = 0
    group: str = "none"

    def __post_init__(self) -> None:
        ways = {name: getattr(self, name) for name in ("density", "heavy_size", "top_p", "threshold")}
        given = [name for name, value in ways.items() if value is not None]
        if len(given) != 1:
            shown = ", ".join(f"{name}={ways[name]}" for name in given or ("density", "heavy_size"))
            raise ConfigError(f"{shown}: exactly one of density, heavy_size and select must be set")
        if self.density is not None:
            check_density("density", self.density)
        if self.heavy_size is not None:
            check_size("heavy_size", self.heavy_size)
        if self.top_p is not None and not _in_unit_interval(self.top_p):
            raise ConfigError(f"top_p={self.top_p}: must be a share of the softmax mass in [0, 1]")
        if self.threshold is not None and not isinstance(self.threshold, (int, float)):
            raise ConfigError(f"threshold={self.threshold}: must be a logit, the softmax scale included")
        if self.max_density is not None:
            if given[0] in ("density", "heavy_size"):
                raise ConfigError(f"max_density={self.max_density}: bounds top_p and threshold, not {given[0]}")
            check_density("max_density", self.max_density)
        if self.group not in GROUPS:
            raise ConfigError(f"group={self.group}: must be one of {', '.join(GROUPS)}")
        if self.mass not in ("residual", "total"):
            raise ConfigError(f"mass={self.mass}: must be residual or total")

    @classmethod
    def of(cls, select: Mapping[str, Any] | None = None, **ways: Any) -> "Selector":
        """From a stage's fields, `select` being {top_p: 0.9}, {threshold: 2.0}, {density: 0.1} or {heavy_size: 64}."""
        known = {field.name for field in fields(cls)} - {"min_units", "group", "ties"}
        given = {key: value for key, value in ways.items() if value is not None}
        if select is None:
            return cls(**given)
        if not isinstance(select, Mapping) or not select or not set(select) <= known:
            shown = dict(select) if isinstance(select, Mapping) else select
            raise ConfigError(
                f"select={shown}: must be a mapping such as {{top_p: 0.9}}; keys: {', '.join(sorted(known))}"
            )
        if twice := [key for key in ("density", "heavy_size") if key in given]:
            raise ConfigError(f"select={dict(select)}, {twice[0]}={given[twice[0]]}: exactly one of them must be set")
        return cls(**{**given, **select})

    @property
    def keeps_all(self) -> bool:
        """Whether the fields alone say that every valid key is kept."""
        shares = self.density if isinstance(self.density, (list, tuple)) else [self.density]
        return all(share == 1 for share in shares) or (isinstance(self.heavy_size, float) and self.heavy_size == 1)


def _in_unit_interval(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value <= 1
