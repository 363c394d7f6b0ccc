"""How closely a trial is looked at: a fidelity a file, ordered from cheap to dear by its PLACE."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from sahub.extensions import all_of


class Runs(Protocol):
    """A session, as far as a fidelity asks it."""

    def replay(self, prefix: Any, question: list[int], answer: list[int], attention: Any) -> Any:
        """The stack on the trace of a dense run of both."""

    def force(self, prefix: Any, question: list[int], answer: list[int], attention: Any) -> Any:
        """The question and a given answer in one chunk."""

    def generate(self, prefix: Any, question: list[int], attention: Any, **ends: Any) -> Any:
        """Greedy decoding of an answer."""

    def generate_together(
        self, prefix: Any, questions: Sequence[list[int]], attention: Any, most: Sequence[int], **ends: Any
    ) -> Sequence[Any]:
        """The same for several questions at once."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """One question that a stack is asked after a prefix."""

    prefix: Any
    question: list[int]
    dense: Any  # the model's own answer, a Run
    attention: Any
    ends: Mapping[str, Any]  # when a generated answer is over: max_new_tokens, line_stop, deadline


class Fidelity(Protocol):
    """What a module of this folder has."""

    PLACE: int
    HELP: str  # what trials are measured by, a few words

    TOGETHER: bool  # whether it gains by several questions of a context at once

    def answers(self, session: Runs, asked: Sequence[Asked]) -> list[tuple[Any, Any]]:
        """(the run in which the dense answer was forced, the run that generated an answer: None where none did)."""


FIDELITIES: dict[str, Any] = {module.__name__.rpartition(".")[2]: module for module in all_of("fidelities")}


def dearest(*names: str | None) -> str:
    """The dearest of these fidelities, which has all that any of them has."""
    order = [*FIDELITIES]
    return order[max(order.index(name) for name in names if name is not None)]


def is_last(name: str) -> bool:
    """Whether no fidelity is dearer: its answers are the stack's own."""
    return name == [*FIDELITIES][-1]
