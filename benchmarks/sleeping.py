"""A stage that only takes time, for measuring what lies around it."""

import time
from dataclasses import dataclass

from sahub.attention.call import Call
from sahub.attention.selection import Selection
from sahub.attention.stage import Index, Stage


@dataclass(frozen=True, kw_only=True)
class Sleeping(Stage):
    """Keeps no key; sleeps in the first layer of a question chunk."""

    seconds: float = 0.0

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """What was taken before."""
        if call.layer == 0 and call.q.shape[2] > 1:
            time.sleep(self.seconds)
        return taken
