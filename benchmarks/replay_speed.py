"""Replay beside teacher forcing, the same stacks on the same question: `python benchmarks/replay_speed.py model=... `.

Prints the median seconds of both and their ratio, alternating. Further arguments are overrides of a search.
"""

import sys
import time
from collections.abc import Callable
from statistics import median

from sahub.config.cell import compose_cell
from sahub.engine.requests import Prepared, load
from sahub.engine.session import Session
from sahub.search.trial import attention_of

BUILDERS = ("streaming_llm", "quest", "double_sparsity", "pqcache", "snapkv")


def seconds(work: Callable[..., object], *given: object) -> float:
    """How long a call takes."""
    begin = time.perf_counter()
    work(*given)
    return time.perf_counter() - begin


def main() -> None:
    """Print a line per builder."""
    given = sys.argv[1:]
    cell = compose_cell(["task=ruler/niah_single_1", "search.max_context_length=1024", *given])
    model = load(cell)
    session, request = Session(model), Prepared(model).requests(cell, "search")[0]
    prefix, question = session.prefix(request.context_ids, request.room(48)), list(request.question_ids[0])
    answer = session.dense_answer(prefix, request.context_ids, tuple(question), max_new_tokens=48).ids
    traced = seconds(session.trace_of, prefix, question, answer)
    print(f"{prefix.length} keys, {len(question)} + {len(answer)} rows; trace {traced:.2f} s")  # noqa: T201
    for builder in BUILDERS:
        how = attention_of(compose_cell([f"builder={builder}", *given]), ())
        taken = [
            [seconds(way, prefix, question, answer, how) for way in (session.force, session.replay)] for _ in "12345"
        ]
        forced, replayed = (median(column) for column in zip(*taken, strict=True))
        print(f"{builder}: forced {forced:.3f} s, replay {replayed:.3f} s, {forced / replayed:.1f} x")  # noqa: T201


if __name__ == "__main__":
    main()
