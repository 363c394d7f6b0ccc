"""Generation: the stack answers by itself, token by token; the dense answer is forced besides, for its measures."""

from typing import Any

from sahub.fidelities import Asked, Runs

PLACE = 2
HELP = "generated ones"


def answer(session: Runs, asked: Asked) -> tuple[Any, Any]:
    """See Fidelity."""
    forced = session.force(asked.prefix, asked.question, asked.dense.ids, asked.attention)
    return forced, session.generate(asked.prefix, asked.question, asked.attention, **asked.ends)
