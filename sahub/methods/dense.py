"""Dense: keep every key, and say so."""

from dataclasses import dataclass

from sahub.attention.call import Call
from sahub.attention.selection import Selection
from sahub.attention.stage import Index, Stage


@dataclass(frozen=True, kw_only=True)
class Dense(Stage):
    """Attend to every valid key: density 1, error 0, the reference of all other methods.

    Differs  an explicit choice, never the meaning of an empty stack
    Memory   0 bits per key and KV head
    """

    batched = True

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """Everything."""
        del call, index
        return taken.all()

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True

    @property
    def keeps_all(self) -> bool:
        """Always."""
        return True
