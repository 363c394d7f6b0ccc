"""The observers of a prefix: the queries of the first rows after it, and what they say of keys."""

import copy
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Self

import torch
from torch import Tensor

from sahub.attention.buffers import apart
from sahub.attention.call import Call
from sahub.attention.products import of_single_rows, product
from sahub.attention.shared import whole

_ORDERS = 4  # kept for stacks that share observers; one that asks for more is told anew at every row
_OUT = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What observers say: `num` of them, behind those of which it is known what they said together.

    start    length of the prefix
    logits   fp32 [b, h, num, k], scaled; -inf for keys that an observer does not see
    counted  fp32 [b, num]: 1, or 0 for an observer that is padding
    heard    for each row, how many of the num are at or before it
    looks    for each row, whether it is the last of these itself
    bare     for each row, whether there is no observer at or before it
    own      the rows' own logits, fp32 [b, h, q, k], for those that ask
    before   by name, what those before the num said together, [b, h or 1, m]; empty where there are none
    after    the same of all, written by those that ask
    """

    start: int
    logits: Tensor
    counted: Tensor
    heard: list[int]
    looks: list[bool]
    bare: list[bool]
    own: Callable[[], Tensor]
    before: Mapping[str, Tensor]
    after: dict[str, Tensor] = field(default_factory=dict)

    def summed(self, name: str, said: Tensor) -> Tensor:
        """Sums of what is said [b, h or 1, num, m], in fp64: [b, h or 1, s, m] at the steps that rows ask for."""
        shape, kind = (*said.shape[:2], said.shape[3]), torch.float32 if said.device.type == "mps" else torch.float64
        total = apart(shape, said.new_empty(0, dtype=kind))  # it stays, between what passes
        if self.before:
            total.copy_(self.before[name])
        sums = said.new_empty(*shape[:2], len(self.steps), shape[2])
        for number in range(1 + said.shape[2]):
            if number:
                total.add_(said[:, :, number - 1])
            if number in self.steps:
                sums[:, :, self.steps[number]] = total
        self.after[name] = total
        return sums

    def latest(self, name: str, said: Tensor) -> Tensor:
        """What was said last, [b, h or 1, s, m] at the steps, also after those that are padding, which say nothing."""
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


class Observers:
    """The queries of the first rows after the prefix, by position."""

    def __init__(self, window_size: int) -> None:
        self.length = 0
        self._window_size = window_size
        self._ended: int | None = None  # length of the prefix
        self._queries: dict[int, Tensor] = {}  # [b, h, d]
        self._orders: dict[Hashable, Tensor] = {}  # int32 [b, h or 1, start] by what was asked; forks write to one
        self._said: dict[Hashable, tuple[int, Mapping[str, Tensor]]] = {}  # how many observers, and what they said

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Keys are read when they are scored."""
        del v_new, valid_new
        self.length += k_new.shape[2]

    def freeze(self) -> None:
        """The next rows are the observers."""
        self._ended = self.length if self._ended is None else self._ended

    def observe(self, call: Call) -> None:
        """Remember the rows that are observers."""
        if self._ended is not None and (seen := self._among(call, self._ended)):
            if self._queries and min(seen) <= max(self._queries):
                self._said = {}
            heard = torch.stack([*seen.values()])
            held = apart(heard.shape, heard, 1 << 12).copy_(heard).unbind()
            self._queries |= dict(zip(seen, held, strict=True))
            self._orders = {}

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Forget the observers from `length` on."""
        del k, v, valid
        self.length = min(self.length, length)
        kept = {at: query for at, query in self._queries.items() if at < length}
        if len(kept) < len(self._queries):
            self._queries, self._orders, self._said = kept, {}, {}
        if self._ended is not None and length < self._ended:
            self._ended, self._queries, self._orders, self._said = None, {}, {}, {}

    def fork(self) -> Self:
        """The same observers. What they say together is said once for all forks, until one of them sees others."""
        twin = copy.copy(self)
        twin._queries, twin._said = dict(self._queries), dict(self._said)
        return twin

    def take(self, rows: Tensor) -> Self:
        """See Index."""
        twin = copy.copy(self)
        twin._queries = {at: query[rows] for at, query in self._queries.items()}
        twin._orders = {key: order[rows] for key, order in self._orders.items()}
        twin._said = {
            key: (num, {name: x[rows] for name, x in said.items()}) for key, (num, said) in self._said.items()
        }
        return twin

    def stands(self, call: Call) -> bool:
        """Whether all rows of a call come after the last observer, and there was one."""
        first = call.rows.num_keys - call.rows.num_rows
        return self._ended is not None and bool(self._queries) and first >= self._ended + self._window_size

    def order(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` says once for all rows after the last observer."""
        order = self._orders.get(key)
        if order is None:
            made = make()
            order = apart(made.shape, made).copy_(made)
            for oldest in list(self._orders)[: 1 - _ORDERS]:
                self._orders.pop(oldest, None)
            self._orders[key] = order
            self._said.pop(key, None)
        return order

    def of(self, call: Call, key: Hashable) -> Observed:
        """What the observers say of all keys. Before the prefix ended, it is as if it had ended before the rows.

        Of those that have told `key` before, what they said together, if no row asks for less; see `keep`.
        """
        first = call.rows.num_keys - call.rows.num_rows
        start = first if self._ended is None else self._ended
        shown = {**self._queries, **self._among(call, start)}
        places, rows = sorted(shown), range(first, call.rows.num_keys)
        heard = [sum(at <= row for at in places) for row in rows]
        looks = [row in shown for row in rows]
        known, before = self._said.get(key, (0, {})) if self._ended is not None else (0, {})
        if known > min(num - looks for num, looks in zip(heard, looks, strict=True)):
            known, before = 0, {}
        places = places[known:]

        def own() -> Tensor:
            return _logits(call, call.q, list(rows))

        said = call.q.new_zeros(*call.q.shape[:2], 0, call.rows.num_keys, dtype=torch.float32)
        if places:
            said = _logits(call, torch.stack([shown[at] for at in places], dim=2), places)
        counted = torch.ones(call.rows.batch, len(places), device=call.q.device)
        if call.valid is not None:
            counted = call.valid[:, places].float()
        return Observed(
            start=start,
            logits=said,
            counted=counted,
            heard=[num - known for num in heard],
            looks=looks,
            bare=[num == 0 for num in heard],
            own=own,
            before=before,
        )

    def keep(self, key: Hashable, observed: Observed) -> None:
        """Remember what all observers told `key` together, for the next ones."""
        if self._ended is not None and observed.after:
            self._said[key] = len(self._queries), observed.after

    def _among(self, call: Call, start: int) -> dict[int, Tensor]:
        """The observers among the rows of a call."""
        first = call.rows.num_keys - call.rows.num_rows
        inside = range(max(first, start), min(call.rows.num_keys, start + self._window_size))
        return {at: call.q[:, :, at - first] for at in inside}

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        said = sum(x.nbytes for _, some in self._said.values() for x in some.values())
        return self.code_bytes + said + sum(order.nbytes for order in self._orders.values())

    @property
    def code_bytes(self) -> int:
        """Bytes of the observers' queries."""
        return sum(query.nbytes for query in self._queries.values())


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
