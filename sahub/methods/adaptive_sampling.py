"""Adaptive sampling: draw as many keys as a bound on the error asks for, row by row."""

from dataclasses import dataclass, field
from statistics import NormalDist
from typing import ClassVar, NamedTuple

import torch
from torch import Tensor

from sahub.attention.budgets import (
    Density,
    Size,
    at_layer,
    check_density,
    check_size,
    is_count,
    is_number,
    most_tokens,
    row_share,
    row_tokens,
    share_of,
)
from sahub.attention.call import Call, Picks
from sahub.attention.choose import free_keys
from sahub.attention.gather import by_rows, dots_at, values_at
from sahub.attention.noise import noise
from sahub.attention.selection import Selection, spread
from sahub.attention.selectors import best
from sahub.attention.stage import Index, Stage
from sahub.errors import ConfigError

_OUT = float("-inf")
_MODES = ("denominator", "numerator", "output")


@dataclass(frozen=True, kw_only=True)
class AdaptiveSampling(Stage):
    """Attend to a base sample of the n keys not kept yet, and to b of the others, so that P(error > epsilon) <= delta.

    b = b0 / (1 + b0 / m),  b0 = (z * kappa * sigma * m / (epsilon * size))^2,  m = n - base,  z = PPF(1 - delta / 2)

    mode=denominator  sigma of e = exp(logit) over the base, size = the softmax denominator
    mode=numerator    sigma^2 = sum over channels of var(e * v), size = |sum e * v|
    mode=output       sigma^2 = sum over channels of var(e * (v - output)), size = denominator * |output|
    max_density       an upper bound of what is kept in total, whatever the bound asks for

    Source   Desai et al. 2025 (vAttention), arXiv:2510.05688
    Differs  two-sided bound; drawn without replacement; the base sample is kept with weight 1 and tells how many of the
             other keys are drawn, with weight m / b: a sample that sets its own size and enters the sum with weight
             n / b is biased (docs/adr); kappa raises sigma to what it does not exceed with probability
             `sigma_confidence`, as a few keys tell little about it; keys that are kept already are no part of it; the
             size of a sum of vectors is estimated without the noise that makes it look larger than it is
    Memory   0 bits per key and KV head
    """

    samples: ClassVar[bool] = True
    batched = True

    base_rate_sampling: Size = field(
        default=0.02, metadata={"unit": "tokens, or a share", "search": {"low": 0.005, "high": 0.1, "log": True}}
    )
    epsilon: float = field(default=0.05, metadata={"unit": "relative error", "search": {"low": 0.01, "high": 0.5}})
    delta: float = field(default=0.05, metadata={"unit": "probability", "search": {"low": 0.01, "high": 0.5}})
    mode: str = field(default="denominator", metadata={"search": {"choices": list(_MODES)}})
    max_density: Density | None = field(default=None, metadata={"unit": "share of the valid keys"})
    sigma_confidence: float = field(default=0.75, metadata={"unit": "probability"})

    def __post_init__(self) -> None:
        check_size("base_rate_sampling", self.base_rate_sampling)
        for name in ("epsilon", "delta", "sigma_confidence"):
            value = getattr(self, name)
            if not is_number(value) or not 0 < value < 1:
                raise ConfigError(f"{name}={value}: must be in (0, 1), both ends excluded")
        if self.mode not in _MODES:
            raise ConfigError(f"mode={self.mode}: must be one of {', '.join(_MODES)}")
        if self.max_density is not None:
            check_density("max_density", self.max_density)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The base sample and as many more keys as each row needs; nothing where base_rate_sampling is 0."""
        del index
        if self.base_rate_sampling == 0:
            return taken
        if self.keeps_all:
            return taken.all()
        read = (taken.slots.shape[-1] + self._most(call)) * max(call.k.shape[-1], call.v.shape[-1])
        return by_rows(call, taken, call.rows.batch * call.num_heads * max(call.rows.num_keys, read), self._pick)

    @property
    def keeps_all(self) -> bool:
        """Only when all keys are the base sample."""
        return isinstance(self.base_rate_sampling, float) and self.base_rate_sampling == 1

    def _most(self, call: Call) -> int:
        """The largest base sample."""
        if is_number(self.base_rate_sampling) and not is_count(self.base_rate_sampling):
            return max(2, share_of(self.base_rate_sampling, call.rows.num_keys))
        return max(2, most_tokens(self.base_rate_sampling, call.rows.num_keys, call.density))

    def _base(self, call: Call, taken: Selection, num_free: Tensor) -> Tensor:
        """Size of the base sample, int64 [b, h, q]."""
        if is_number(self.base_rate_sampling) and not is_count(self.base_rate_sampling):
            size = (num_free.double() * self.base_rate_sampling + 1e-6).floor().long()
        else:
            size = row_tokens(self.base_rate_sampling, call.rows, call.density, taken.counts())
        return torch.minimum(size.clamp(min=2), num_free)

    def _pick(self, call: Call, taken: Selection) -> Picks:
        free = free_keys(call, taken)
        order = noise(call).masked_fill(~free, _OUT)
        num_free = free.sum(-1)  # [b, h, q]
        base, most = self._base(call, taken, num_free), num_free
        bound = call.rows.num_keys
        density = at_layer(self.max_density, call.layer)
        if density is not None:
            left = (row_share(density, call.rows)[:, None] - taken.counts()).clamp(min=0)
            most, bound = torch.minimum(most, left), share_of(density, bound)
            base = torch.where(most < num_free, torch.minimum(base, (most - 1).clamp(min=0)), base)
        rest = num_free - base
        first = best(order, base, self._most(call))
        drawn = self._drawn(call, taken, first, base, rest)
        drawn = torch.minimum(torch.where(base < 2, rest, drawn), most - base).clamp(min=0)
        picks = best(order, base + drawn, bound)
        weight = -(drawn.double() / rest.clamp(min=1)).log().float()[..., None]
        weight = torch.where(_among_first(order, picks.units, first), 0.0, weight)
        return Picks(picks.units, torch.where(picks.log_weight > _OUT, weight, _OUT))

    def _drawn(self, call: Call, taken: Selection, picked: Picks, base: Tensor, rest: Tensor) -> Tensor:
        """How many of the `rest` keys each row draws beside its base sample: int64 [b, h, q], at least 1."""
        sigma, size = self._spread(
            _moments(call, taken, picked, with_values=self.mode != "denominator"), base, base + rest
        )
        degrees = (base - 1).clamp(min=1).double()
        kappa = (degrees / _chi2_quantile(1 - self.sigma_confidence, degrees)).sqrt()
        z = NormalDist().inv_cdf(1 - self.delta / 2)
        asked = (z * kappa * sigma * rest / (self.epsilon * size)).square().nan_to_num(float("inf"))
        drawn = (rest / (1 + rest / asked)).nan_to_num(1.0).ceil().long()  # of finitely many
        return torch.minimum(drawn.clamp(min=1), rest)

    def _spread(self, known: "_Moments", base: Tensor, num_free: Tensor) -> tuple[Tensor, Tensor]:
        """Standard deviation of what is summed up, and the size of the whole sum: fp64 [b, h, q]."""
        num, degrees = base.clamp(min=1).double(), (base - 1).clamp(min=1).double()
        grow = num_free / num
        denominator = known.held + grow * known.weight.sum(-1)
        if self.mode == "denominator":
            return _deviation(known.weight[..., None], known.inside, num, degrees), denominator
        assert known.values is not None
        assert known.held_values is not None
        sums = known.weight[..., None] * known.values
        whole = known.held_values + grow[..., None] * sums.sum(-2)
        sigma = _deviation(sums, known.inside, num, degrees)
        chance = num_free * (num_free - base) / num * sigma.square()  # what noise adds to |whole|^2 on average
        length = (whole.square().sum(-1) - chance).clamp(min=0).sqrt()
        if self.mode == "numerator":
            return sigma, length
        output = whole / denominator[..., None]
        residual = known.weight[..., None] * (known.values - output[..., None, :])
        return _deviation(residual, known.inside, num, degrees), length  # = denominator * |output|


def _among_first(order: Tensor, units: Tensor, first: Picks) -> Tensor:
    """Which `units` [b, h, q, s] are at or before the last of the `first` by their numbers in `order`."""
    if not first.units.shape[-1]:
        return torch.zeros_like(units, dtype=torch.bool)
    numbers = order.gather(-1, first.units).masked_fill(first.log_weight == _OUT, -_OUT)
    least = numbers.amin(-1, keepdim=True)
    last = torch.where(numbers == least, first.units, order.shape[-1]).amin(-1, keepdim=True)
    number = order.gather(-1, units)
    return (least > _OUT) & ((number > least) | ((number == least) & (units >= last)))


class _Moments(NamedTuple):
    """What is known of a row, exp(logit - top) throughout; fp64. Values are None where nothing asks for them."""

    held: Tensor  # [b, h, q]: sum over the kept keys
    held_values: Tensor | None  # [b, h, q, dv]
    weight: Tensor  # [b, h, q, s]: of the base sample, 0 in empty slots
    values: Tensor | None  # [b, h, q, s, dv]
    inside: Tensor  # bool [b, h, q, s]: no empty slot


def _moments(call: Call, taken: Selection, picked: Picks, *, with_values: bool) -> _Moments:
    inside, certain = picked.log_weight > _OUT, taken.weights == 0
    logits = call.capped(dots_at(call, picked.units) * call.scale).masked_fill(~inside, _OUT)
    held = call.capped(dots_at(call, taken.slots) * call.scale).masked_fill(~spread(certain, call.num_heads), _OUT)
    top = torch.cat([logits, held, logits.new_full((*logits.shape[:3], 1), torch.finfo(torch.float32).min)], -1)
    top = top.amax(-1, keepdim=True)
    weight, kept = (x.sub(top).double().exp() for x in (logits, held))
    if not with_values:
        return _Moments(kept.sum(-1), None, weight, None, inside)
    held_values = (kept[..., None, :] @ values_at(call, taken.slots).double()).squeeze(-2)
    return _Moments(kept.sum(-1), held_values, weight, values_at(call, picked.units).double(), inside)


def _deviation(x: Tensor, inside: Tensor, num: Tensor, degrees: Tensor) -> Tensor:
    """Square root of the sample variances, summed over the last axis: [b, h, q] from [b, h, q, s, d]."""
    x = x * inside[..., None]
    away = (x - x.sum(-2, keepdim=True) / num[..., None, None]) * inside[..., None]
    return (away.square().sum((-1, -2)) / degrees).sqrt()


def _chi2_quantile(probability: float, degrees: Tensor) -> Tensor:
    """Wilson and Hilferty's approximation, within 5 % from one degree of freedom on at 0.25."""
    spread = 2 / (9 * degrees)
    return degrees * (1 - spread + NormalDist().inv_cdf(probability) * spread.sqrt()).clamp(min=0.1) ** 3
