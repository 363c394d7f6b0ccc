"""Generation: the stack answers by itself, token by token; the dense answer is forced besides, for its measures."""

from collections.abc import Sequence
from typing import Any

from sahub.fidelities import Asked, Runs

PLACE = 2
HELP = "generated ones"
TOGETHER = True


def answers(session: Runs, asked: Sequence[Asked]) -> list[tuple[Any, Any]]:
    """See Fidelity."""
    first, forced = asked[0], [session.force(one.prefix, one.question, one.dense.ids, one.attention) for one in asked]
    questions, most = [one.question for one in asked], [one.ends["max_new_tokens"] for one in asked]
    ends = {name: first.ends[name] for name in ("line_stop", "deadline")}
    generated = session.generate_together(first.prefix, questions, first.attention, most, **ends)
    return list(zip(forced, generated, strict=True))
