"""Which trials of a generation are surely worse than the best so far, by their values on the contexts that both saw."""

from collections.abc import Iterable, Mapping
from statistics import fmean
from typing import TypeVar

from sahub.search.trial import Trial
from sahub.stats.intervals import normal_interval

Key = TypeVar("Key")


def losers(earlier: Iterable[Trial], running: Mapping[Key, Trial], contexts: int) -> dict[Key, str]:
    """The running trials that end after as many contexts, with the reason.

    A trial loses where the 95 % interval of its values minus those of the best, paired by context, lies above 0. The
    best is that of the lowest mean on what the running ones saw: of the feasible where there are any, and of those of
    `earlier` generations that came through.

    Source   Maron and Moore 1997, Artif. Intell. Rev. 11:193; Birattari, Stuetzle, Paquete and Varrentrapp 2002, GECCO
    Differs  Student's interval of each pair, without a test over all
    """
    seen = {name for trial in running.values() for name in trial.each}
    rivals = [trial for trial in [*earlier, *running.values()] if seen and seen <= trial.each.keys()]
    best = min(
        [trial for trial in rivals if trial.feasible] or rivals,
        key=lambda trial: (fmean(trial.each[name] for name in seen), trial.overrides),
        default=None,
    )
    return {} if best is None else {key: why for key, one in running.items() if (why := _lost(one, best, contexts))}


def _lost(trial: Trial, best: Trial, contexts: int) -> str:
    """Why a trial has lost to the best; empty where it may still be no worse."""
    shared = [name for name in trial.each if name in best.each]
    if trial is best or not shared:
        return ""
    _, low, high = normal_interval([trial.each[name] - best.each[name] for name in shared])
    worse = f"{fmean(trial.each[name] for name in shared):.4g} after {contexts} contexts: worse than the best so far"
    return f"{worse} by {low:.2g} to {high:.2g}" if low > 0 else ""
