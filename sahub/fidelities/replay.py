"""Replay: the stack on the trace of one dense run, without the model: errors do not pass on to later layers."""

from collections.abc import Sequence
from typing import Any

from sahub.fidelities import Asked, Runs

PLACE = 0
HELP = "replayed traces"
TOGETHER = False


def answers(session: Runs, asked: Sequence[Asked]) -> list[tuple[Any, Any]]:
    """See Fidelity."""
    return [(session.replay(one.prefix, one.question, one.dense.ids, one.attention), None) for one in asked]
