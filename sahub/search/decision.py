"""The last decision of a search: the winner of the trials or the builder's default, on contexts that chose neither."""

import logging
from collections.abc import Sequence
from dataclasses import replace

from sahub.search.scope import Part
from sahub.search.trial import Trial

log = logging.getLogger(__name__)


def promoting(parts: Sequence[Part]) -> list[Part]:
    """The parts with as many contexts for generated answers as `search.decide` says, of those that trials saw."""
    return [replace(part, requests=part.requests[: part.cell.settings.search.decide or None]) for part in parts]


def deciding(parts: Sequence[Part]) -> list[Part]:
    """The parts with the contexts that decide; none where a task has none."""
    found = [replace(part, requests=part.deciding) for part in parts]
    return found if all(part.requests for part in found) else []


def check_rows(parts: Sequence[Part]) -> None:
    """Say of which tasks there are too few contexts for both."""
    for part in parts:
        search, task = part.cell.settings.search, part.cell.choices.task
        if len(part.deciding) < search.decide:
            log.warning(
                "task=%s: too few contexts: %d for search, %d of them to decide, where search.decide=%d",
                task, len(part.requests) + len(part.deciding), len(part.deciding), search.decide,
            )  # fmt: skip


def why_default(winner: Trial, default: Trial) -> str:
    """Why the default stays, of both as they generated; empty where the winner is no worse, or where nobody can tell.

    The winner is no worse where what is minimised is no higher, its answers score no lower, and it meets its targets.
    """
    if default.value is None:
        return ""
    if winner.value is None:
        return f"the winner ended as {winner.state}: {winner.reason}"
    contexts = f"on {winner.contexts} further contexts"
    if default.feasible and not winner.feasible:
        return f"the winner exceeds its targets {contexts}"
    one, other = (trial.measures.get("benchmark_score", 0.0) for trial in (winner, default))
    if one < other:
        return f"accuracy {100 * one:.1f} % against {100 * other:.1f} % {contexts}"
    if winner.value > default.value:
        return f"value {winner.value:.4g} against {default.value:.4g} {contexts}"
    return ""
