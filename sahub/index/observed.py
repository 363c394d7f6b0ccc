"""What the observers of a prefix say of its keys."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.attention.products import of_single_rows, product
from sahub.attention.rows import at_once
from sahub.attention.shared import whole

_CACHED = 1 << 18  # logits that are looked at together on a CPU
_OUT = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What observers say: `num` of them, behind those of which it is known what they said together.

    call     whose rows ask, or some of its heads
    queries  of the num, [b, h, num, d], at the positions `places`
    start    length of the prefix
    counted  fp32 [b, num]: 1, or 0 for an observer that is padding
    earlier  fp32 [b, 1]: how many that are not padding came before the num
    heard    for each row, how many of the num are at or before it
    looks    for each row, whether it is the last of these itself
    bare     for each row, whether there is no observer at or before it
    before   by name, what those before the num said together, [b, h, m]; empty where there are none
    after    the same of all, written by those that ask
    """

    call: Call
    queries: Tensor
    places: list[int]
    start: int
    counted: Tensor
    earlier: Tensor
    heard: list[int]
    looks: list[bool]
    bare: list[bool]
    before: Mapping[str, Tensor]
    after: dict[str, Tensor] = field(default_factory=dict)

    @cached_property
    def logits(self) -> Tensor:
        """What the num give the keys, scaled; -inf for keys that an observer does not see: fp32 [b, h, num, k]."""
        if self.places:
            return _logits(self.call, self.queries, self.places)
        return self.queries.new_zeros(*self.queries.shape[:3], self.call.rows.num_keys, dtype=torch.float32)

    def own(self) -> Tensor:
        """The rows' own logits, fp32 [b, h, q, k]."""
        num_keys = self.call.rows.num_keys
        return _logits(self.call, self.call.q, list(range(num_keys - self.call.rows.num_rows, num_keys)))

    @cached_property
    def numbers(self) -> Tensor:
        """How many that are not padding are heard at the steps that rows ask for, at least 1: fp32 [b, 1, s, 1]."""
        heard = self.earlier + torch.nn.functional.pad(self.counted.cumsum(1), (1, 0))
        return heard[:, None, list(self.steps), None].clamp(min=1)

    def parts(self) -> Iterator["Observed"]:
        """The same for some KV heads at a time, whose logits a core's cache holds; after the last, all have told."""
        call, heads, told = self.call, self.call.num_kv_heads, []
        each = self.queries.shape[0] * max(len(self.places), call.rows.num_rows) * call.rows.num_keys
        size = at_once(call.q.device, _CACHED) // max(1, each * (call.num_heads // heads)) or 1
        if size >= heads or not (isinstance(call.k, Tensor) and isinstance(call.v, Tensor)):
            yield self
            return
        for first in range(0, heads, size):
            own = slice(first, first + size)
            query = slice(first * call.num_heads // heads, (first + size) * call.num_heads // heads)
            part = replace(
                self,
                call=replace(call, q=call.q[:, query], k=call.k[:, own], v=call.v[:, own]),
                queries=self.queries[:, query],
                before={name: said[:, query] for name, said in self.before.items()},
                after={},
            )
            yield part
            told.append(part.after)
        self.after.update({name: torch.cat([after[name] for after in told], dim=1) for name in told[0]})

    def summed(self, name: str, said: Tensor) -> Tensor:
        """Sums of what is said [b, h, num, m], in fp64: [b, h, s, m] at the steps that rows ask for."""
        shape, kind = (*said.shape[:2], said.shape[3]), torch.float32 if said.device.type == "mps" else torch.float64
        total = self.before[name].clone() if self.before else said.new_zeros(shape, dtype=kind)
        sums = said.new_empty(*shape[:2], len(self.steps), shape[2])
        for number in range(1 + said.shape[2]):
            if number:
                total.add_(said[:, :, number - 1])
            if number in self.steps:
                sums[:, :, self.steps[number]] = total
        self.after[name] = total
        return sums

    def latest(self, name: str, said: Tensor) -> Tensor:
        """What was said last, [b, h, s, m] at the steps, also after those that are padding, which say nothing."""
        numbers = torch.arange(1, said.shape[2] + 1, device=said.device)
        last = torch.nn.functional.pad(torch.where(self.counted > 0, numbers, 0), (1, 0)).cummax(dim=1).values
        if not (self.before or said.shape[2]):
            return said
        first = (
            self.before[name][:, :, None] if self.before else said[:, :, :1]
        )  # the first one is heard, whatever it is
        behind = torch.cat([first, said], dim=2)
        heard = behind.gather(2, last[:, None, :, None].expand_as(behind))
        self.after[name] = heard[:, :, -1].clone()
        return heard[:, :, list(self.steps)]

    def served(self, said: Tensor, alone: Callable[[Tensor], Tensor], *, by_earlier: bool = False) -> Tensor:
        """For each row what its observers say together, of `said` [b, h, s, m] at the steps.

        alone       what a row without observers is served by, of its own logits
        by_earlier  without the row itself
        """
        bare = [none or (by_earlier and first) for none, first in zip(self.bare, self._firsts(), strict=True)]
        own = alone(self.own()) if any(bare) else said
        places = [num - (by_earlier and looks) for num, looks in zip(self.heard, self.looks, strict=True)]
        rows = [own[:, :, row] if bare[row] else said[:, :, self.steps[place]] for row, place in enumerate(places)]
        return torch.stack(rows, dim=2)

    @cached_property
    def steps(self) -> dict[int, int]:
        """After how many of the num a row may ask what they said, ascending: its place among them."""
        asked = {num - less for num, looks in zip(self.heard, self.looks, strict=True) for less in (0, looks)}
        return {step: place for place, step in enumerate(sorted(asked))}

    def _firsts(self) -> list[bool]:
        """For each row, whether it is the first observer of all."""
        return [not self.before and looks and num == 1 for num, looks in zip(self.heard, self.looks, strict=True)]


def _logits(call: Call, queries: Tensor, places: list[int]) -> Tensor:
    """Logits of queries [b, h, n, d] at these positions for the valid keys up to their own: fp32 [b, h, n, k]."""
    grouped, keys = queries.unflatten(1, (call.num_kv_heads, -1)), whole(call.k)  # [b, g, r, n, d]
    dots = of_single_rows(grouped, keys)
    if dots is None:
        dots = product(grouped.flatten(2, 3), keys.mT).unflatten(2, grouped.shape[2:4]).flatten(1, 2)
    logits = call.capped(dots.mul_(call.scale))
    if places == [keys.shape[2] - 1] and call.valid is None:
        return logits
    first = min(places)  # all see the keys before it
    later = torch.arange(first, keys.shape[2], device=queries.device)
    logits[..., first:].masked_fill_(later > torch.tensor(places, device=queries.device)[:, None], _OUT)
    return logits if call.valid is None else logits.masked_fill_(~call.valid[:, None, None], _OUT)


def shares_of(logits: Tensor) -> Tensor:
    """Attention of rows [..., k]: their softmax, 0 for a row that sees no key."""
    shares: Tensor = logits.softmax(dim=-1).nan_to_num_(0.0)
    return shares
