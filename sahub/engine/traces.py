"""The traces that a session keeps, whatever prefix is in use."""

from collections import OrderedDict
from collections.abc import Callable, Hashable

from sahub.engine.trace import Trace


class TraceStore:
    """Traces by key within a byte budget: the least recently used leaves; anything can be made again."""

    def __init__(self, budget_bytes: int) -> None:
        self.budget_bytes = budget_bytes
        self._held: OrderedDict[Hashable, Trace] = OrderedDict()

    def get(self, key: Hashable, make: Callable[[], Trace]) -> Trace:
        """The trace of `key`, made when it is not held."""
        if key not in self._held:
            self._held[key] = make()
        self._held.move_to_end(key)
        while len(self._held) > 1 and sum(trace.nbytes for trace in self._held.values()) > self.budget_bytes:
            self._held.popitem(last=False)
        return self._held[key]
