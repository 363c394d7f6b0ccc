"""The observers of a prefix: the queries of the first rows after it, and what they say of keys."""

import copy
from collections.abc import Callable, Hashable, Mapping
from typing import Self

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.index.observed import Observed

_ORDERS = 4  # kept for stacks that share observers; one that asks for more is told anew at every row


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
            self._queries |= dict(zip(seen, torch.stack([*seen.values()]), strict=True))
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
            order = make()
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
        places = sorted(shown)
        heard = [sum(at <= row for at in places) for row in range(first, call.rows.num_keys)]
        looks = [row in shown for row in range(first, call.rows.num_keys)]
        known, before = self._said.get(key, (0, {})) if self._ended is not None else (0, {})
        if known > min(num - looks for num, looks in zip(heard, looks, strict=True)):
            known, before = 0, {}
        counted = torch.ones(call.rows.batch, len(places), device=call.q.device)
        if call.valid is not None:
            counted = call.valid[:, places].float()
        asked = [shown[at] for at in places[known:]]
        return Observed(
            call=call,
            queries=torch.stack(asked, dim=2) if asked else call.q[:, :, :0],
            places=places[known:],
            start=start,
            counted=counted[:, known:],
            earlier=counted[:, :known].sum(1, keepdim=True),
            heard=[num - known for num in heard],
            looks=looks,
            bare=[num == 0 for num in heard],
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
