"""The places of Ray's workers, as those who hand them units know them."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from sahub.engine.model import Counters


@dataclass
class Slot:
    """A worker's place: who is there changes when one dies."""

    name: str
    handle: Any
    starting: Any  # what `start` will have returned
    counters: Counters = field(default_factory=lambda: Counters(loads=0))  # as last told


class Slotted(Protocol):
    """Workers in slots, of which one that died is replaced."""

    name: str  # of the model
    namespace: str  # of Ray, in which the workers have their names
    results: Path  # where Tune writes

    @property
    def slots(self) -> Sequence[Slot]:
        """Every worker's place."""

    def replace(self, slot: Slot, why: str) -> None:
        """A new worker in the place of one that died or hangs. Raises RunError where none can start."""
