"""Which trials of a generation are surely worse than the best so far, by their values on the contexts that both saw."""

from collections.abc import Callable, Iterable, Mapping
from operator import le
from statistics import fmean
from typing import TypeVar

from sahub.search.trial import Trial
from sahub.stats.intervals import TAIL, signed_rank_p_value

Key = TypeVar("Key")


def losers(
    earlier: Iterable[Trial],
    running: Mapping[Key, Trial],
    contexts: int,
    spends: Callable[[Trial], tuple[float, ...]] = lambda trial: (),
) -> dict[Key, str]:
    """The running trials that end after as many contexts, with the reason.

    A trial loses where its values are above those of the best, paired by context, by the signed-rank test at 2.5 %: it
    counts contexts, so that one that costs more than all others decides nothing. The best is that of the lowest mean
    on what the running ones saw: of the feasible where there are any, of those of `earlier` generations that came
    through, and of those that spend no more than the trial does (and a thousandth).

    Source   Maron and Moore 1997, Artif. Intell. Rev. 11:193; Birattari, Stuetzle, Paquete and Varrentrapp 2002, GECCO
    Differs  Wilcoxon's test of each pair with the best, in place of bounds on means, or of a test over all
    """
    seen = {name for trial in running.values() for name in trial.each}
    rivals = [trial for trial in [*earlier, *running.values()] if seen and seen <= trial.each.keys()]
    order = sorted(
        [trial for trial in rivals if trial.feasible] or rivals,
        key=lambda trial: (fmean(trial.each[name] for name in seen), trial.overrides),
    )
    found = {}
    for key, one in running.items():
        most = [1.001 * spent for spent in spends(one)]
        best = next((rival for rival in order if all(map(le, spends(rival), most))), None)
        if best is not None and (why := _lost(one, best, contexts)):
            found[key] = why
    return found


def _lost(trial: Trial, best: Trial, contexts: int) -> str:
    """Why a trial has lost to the best; empty where it may still be no worse."""
    pairs = [(value, best.each[name]) for name, value in trial.each.items() if name in best.each]
    if trial is best or not pairs or signed_rank_p_value([one - other for one, other in pairs]) >= TAIL:
        return ""
    mine, least = (fmean(values) for values in zip(*pairs, strict=True))
    worse = sum(one > other for one, other in pairs)
    return f"{mine:.4g} after {contexts} contexts: the best so far has {least:.4g}, and less in {worse} of {len(pairs)}"
