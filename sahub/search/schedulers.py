"""Which trials of a generation go on to more contexts: decided on their values so far, never on who was first."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import TypeVar

from sahub.config.settings import Scheduler

Key = TypeVar("Key")


def rungs(scheduler: Scheduler, contexts: int) -> list[int]:
    """Numbers of contexts after which a decision is made: `first`, then `eta` times as many, below all of them."""
    if scheduler.name == "none":
        return []
    found, seen = [], scheduler.first
    while seen < contexts:
        found.append(seen)
        seen *= scheduler.eta
    return found


def losers(
    scheduler: Scheduler, earlier: Sequence[float], running: Mapping[Key, float], contexts: int
) -> dict[Key, str]:
    """The running trials that end here, with the reason.

    `earlier` are the values that trials of earlier generations had after as many contexts, `running` those of this
    generation, both in the order asked.
    """
    values = [*earlier, *running.values()]
    if not running:
        return {}
    if scheduler.name == "median":
        middle = median(values)
        return {
            key: f"{value:.4g} after {contexts} contexts: worse than the median {middle:.4g} of {len(values)} trials"
            for key, value in running.items()
            if value > middle
        }
    kept = max(1, len(values) // scheduler.eta)
    order = sorted(range(len(values)), key=lambda number: (values[number], number))
    ranks = {number: rank for rank, number in enumerate(order, start=1)}
    return {
        key: f"{value:.4g} after {contexts} contexts: rank {ranks[number]} of {len(values)}, the best {kept} go on"
        for number, (key, value) in enumerate(running.items(), start=len(earlier))
        if ranks[number] > kept
    }
