"""Replay: the stack on the trace of one dense run, without the model: errors do not pass on to later layers."""

from typing import Any

from sahub.fidelities import Asked, Runs

PLACE = 0
HELP = "replayed traces"


def answer(session: Runs, asked: Asked) -> tuple[Any, Any]:
    """See Fidelity."""
    return session.replay(asked.prefix, asked.question, asked.dense.ids, asked.attention), None
