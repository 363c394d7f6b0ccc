"""What every sparse layer did in every phase of a question: the lines of micro_metrics.jsonl."""

from collections.abc import Mapping, Sequence
from typing import Any

from sahub.engine.call_stats import Tally
from sahub.engine.forward import Answered
from sahub.engine.replay import Replayed


def micro_rows(
    run: Answered | Replayed, example: str, question: str, layers: Sequence[int], chunk: int
) -> list[dict[str, Any]]:
    """One row per sparse layer and phase: rows, e, density, kv_density, selected keys; a dense run has density 1."""
    where = {"example": example, "question": question}
    if run.hook is None:
        sizes = {"question": chunk, "decode": len(run.ids) - 1}
        errors: dict[str, Any] = {"error": 0.0, "norm": 1.0, "elements": 1, "e": 0.0}
        full = {**errors, "density": 1.0, "kv_density": 1.0, "selected": None}
        return [
            {**where, "layer": layer, "phase": phase, "rows": rows, **full}
            for layer in layers
            for phase, rows in sizes.items()
            if rows
        ]
    return rows_of_tallies(run.hook.tallies, example, question)


def rows_of_tallies(tallies: Mapping[tuple[int, str], Tally], example: str, question: str) -> list[dict[str, Any]]:
    """One row per sparse layer and phase of a question."""
    where = {"example": example, "question": question}
    return [
        {**where, "layer": layer, "phase": phase, **tally.summary()}
        for (layer, phase), tally in sorted(tallies.items())
    ]
