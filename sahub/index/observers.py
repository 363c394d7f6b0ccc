"""The observers of a prefix: the queries of the first rows after it, and what they say of keys."""

import copy
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.attention.products import of_single_rows, product
from sahub.attention.shared import whole

_OUT = float("-inf")


@dataclass(frozen=True, kw_only=True)
class Observed:
    """What the observers of a call say: `num` of them, and the number of those that each row may hear.

    start    length of the prefix
    logits   fp32 [b, h, num, k], scaled; -inf for keys that an observer does not see
    counted  fp32 [b or 1, num]: 1, or 0 for an observer that is padding
    heard    for each row, how many observers are at or before it; a row with none is among `own`
    looks    for each row, whether it is the last of these itself
    own      the rows' own logits, fp32 [b, h, q, k], for those that ask
    """

    start: int
    logits: Tensor
    counted: Tensor
    heard: list[int]
    looks: list[bool]
    own: Callable[[], Tensor]

    def served(self, said: Tensor, alone: Callable[[Tensor], Tensor], *, by_earlier: bool = False) -> Tensor:
        """For each row what its observers say together, of `said` [b, h, num, k] after each of them.

        alone       what a row without observers is served by, of its own logits
        by_earlier  without the row itself
        """
        nums = [num - (by_earlier and looks) for num, looks in zip(self.heard, self.looks, strict=True)]
        own = said if all(nums) else alone(self.own())
        rows = [said[:, :, num - 1] if num else own[:, :, row] for row, num in enumerate(nums)]
        return torch.stack(rows, dim=2)


class Observers:
    """The queries of the first rows after the prefix, by position."""

    def __init__(self, window_size: int) -> None:
        self.length = 0
        self._window_size = window_size
        self._ended: int | None = None  # length of the prefix
        self._queries: dict[int, Tensor] = {}  # [b, h, d]
        self._orders: dict[Hashable, Tensor] = {}  # int32 [b, h or 1, start] of each stage that asked

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
            self._queries |= {at: query.clone() for at, query in seen.items()}
            self._orders = {}

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Forget the observers from `length` on."""
        del k, v, valid
        self.length = min(self.length, length)
        kept = {at: query for at, query in self._queries.items() if at < length}
        if len(kept) < len(self._queries):
            self._queries, self._orders = kept, {}
        if self._ended is not None and length < self._ended:
            self._ended, self._queries, self._orders = None, {}, {}

    def fork(self) -> Self:
        """The same observers."""
        twin = copy.copy(self)
        twin._queries, twin._orders = dict(self._queries), dict(self._orders)
        return twin

    def take(self, rows: Tensor) -> Self:
        """See Index."""
        twin = copy.copy(self)
        twin._queries = {at: query[rows] for at, query in self._queries.items()}
        twin._orders = {key: order[rows] for key, order in self._orders.items()}
        return twin

    def stands(self, call: Call) -> bool:
        """Whether all rows of a call come after the last observer, and there was one."""
        first = call.rows.num_keys - call.rows.num_rows
        return self._ended is not None and bool(self._queries) and first >= self._ended + self._window_size

    def order(self, key: Hashable, make: Callable[[], Tensor]) -> Tensor:
        """What `make` says once for all rows after the last observer."""
        if key not in self._orders:
            self._orders[key] = make()
        return self._orders[key]

    def of(self, call: Call) -> Observed:
        """What the observers say of all keys. Before the prefix ended, it is as if it had ended before the rows."""
        first = call.rows.num_keys - call.rows.num_rows
        start = first if self._ended is None else self._ended
        shown = {**self._queries, **self._among(call, start)}
        places = sorted(shown)

        def own() -> Tensor:
            return _logits(call, call.q, list(range(first, call.rows.num_keys)))

        said = _logits(call, torch.stack([shown[at] for at in places], dim=2), places) if places else own()[:, :, :0]
        counted = torch.ones(1, len(places), device=call.q.device)
        if call.valid is not None:
            counted = call.valid[:, places].float()
        heard = [sum(at <= first + row for at in places) for row in range(call.rows.num_rows)]
        looks = [first + row in shown for row in range(call.rows.num_rows)]
        return Observed(start=start, logits=said, counted=counted, heard=heard, looks=looks, own=own)

    def _among(self, call: Call, start: int) -> dict[int, Tensor]:
        """The observers among the rows of a call."""
        first = call.rows.num_keys - call.rows.num_rows
        inside = range(max(first, start), min(call.rows.num_keys, start + self._window_size))
        return {at: call.q[:, :, at - first] for at in inside}

    @property
    def nbytes(self) -> int:
        """Bytes in use."""
        return self.code_bytes + sum(order.nbytes for order in self._orders.values())

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
    logits = call.capped(dots * call.scale)
    if places == [keys.shape[2] - 1] and call.valid is None:
        return logits
    seen = torch.arange(call.k.shape[2], device=queries.device) <= torch.tensor(places, device=queries.device)[:, None]
    seen = seen[None] if call.valid is None else seen & call.valid[:, None]
    masked: Tensor = logits.masked_fill(~seen[:, None], _OUT)
    return masked


def shares_of(logits: Tensor) -> Tensor:
    """Attention of rows [..., k]: their softmax, 0 for a row that sees no key."""
    shares: Tensor = logits.softmax(dim=-1)
    return shares.nan_to_num(0.0)
