"""What the first stages of a stack keep where they look at positions alone: without a mask the same in every layer."""

from collections.abc import Hashable, Sequence
from itertools import takewhile

import torch

from sahub.attention.call import Call
from sahub.attention.selection import Kind, Selection
from sahub.attention.stage import Stage

_Known = dict[Hashable, tuple[Sequence[Stage], Selection]]
_LARGEST = 1 << 17  # slots of one: 1.5 MB
_MOST = 256  # rows that are known: stages whose sizes are listed by layer are others for every state


class Leads:
    """Selections of the rows of one call, by stages, budget and shape; those of other rows take their place."""

    def __init__(self) -> None:
        self._at: tuple[tuple[int, int], _Known] = (0, 0), {}  # replaced as one: threads may share a stack

    def __reduce__(self) -> tuple[type["Leads"], tuple[()]]:
        """A copy knows nothing yet: its stages are other objects."""
        return Leads, ()

    def of(self, call: Call, stages: Sequence[Stage]) -> tuple[Selection, int]:
        """What the first stages keep that are `by_position`, and how many they are."""
        leading, rows = list(takewhile(lambda stage: stage.by_position, stages)), call.rows
        if rows.mask is not None:
            return _kept(call, leading), len(leading)
        (at, known), now = self._at, (rows.num_rows, rows.num_keys)
        key = (*map(id, leading), call.density, call.num_heads, call.num_kv_heads, rows.batch, rows.device)
        if at == now and key in known:
            return known[key][1], len(leading)
        kept = _kept(call, leading)
        if kept.slots.numel() <= _LARGEST:
            if at != now or len(known) * rows.num_rows >= _MOST:
                known = {}
                self._at = now, known
            known[key] = leading, kept  # as long as they are kept, their ids are theirs
        return kept, len(leading)


def _kept(call: Call, stages: Sequence[Stage]) -> Selection:
    if spans := _spans(call, stages):
        slots = torch.cat([torch.arange(one.start, one.stop, device=call.rows.device) for one in spans])
        return Selection.same(call.rows, call.num_heads, call.num_kv_heads, slots)
    taken = Selection.none(call.rows, call.num_heads, call.num_kv_heads)
    for stage in stages:
        if taken.kind is not Kind.ALL:
            taken = taken.then(stage.add(call, taken, None))
    return taken


def _has_span(kind: type[Stage]) -> bool:
    """Whether what a class says of ranges is said of what it adds, not of what a class above it did."""
    at = {name: next(i for i, one in enumerate(kind.__mro__) if name in vars(one)) for name in ("add", "span")}
    return at["span"] <= at["add"]


def _spans(call: Call, stages: Sequence[Stage]) -> list[range]:
    """What each stage keeps of a single row's keys, side by side; none where some key lies in two, or all are kept."""
    found: list[range] = []
    for stage in stages if call.rows.single else ():
        one = stage.span(call, sum(map(len, found))) if _has_span(type(stage)) else None
        if one is None or any(max(one.start, other.start) < min(one.stop, other.stop) for other in found):
            return []
        found.append(one)
    return found if sum(map(len, found)) < call.rows.num_keys else []
