"""One search, every budget: what trials cost, and the winner for each target of a frontier."""

from collections.abc import Mapping, Sequence
from dataclasses import replace

from sahub.builders.space import Point, Space
from sahub.config.group_schemas import Frontier, Objective
from sahub.search.objective import excess_over, value_of
from sahub.search.trial import Trial


def has_frontier(objective: Objective) -> bool:
    """Whether winners are asked for several budgets."""
    return bool(objective.frontier.density or objective.frontier.aux_bits)


def targets(objective: Objective) -> dict[str, Objective]:
    """The objective at each of its budgets: `density_0.1`, `aux_bits_32`."""
    plain = replace(objective, frontier=Frontier())
    densities = {f"density_{share:g}": replace(plain, density=share) for share in objective.frontier.density}
    return densities | {f"aux_bits_{bits:g}": replace(plain, aux_bits=bits) for bits in objective.frontier.aux_bits}


def costs(objective: Objective, trial: Trial) -> tuple[float, ...]:
    """What a complete trial spends of each kind of budget that the frontier spans; nothing where it spans none."""
    asked = {"density": objective.frontier.density, "aux_bits": objective.frontier.aux_bits}
    spends = {"density": trial.spent, "aux_bits": trial.measures.get("aux_bits", 0.0)}
    return tuple(spends[name] for name, budgets in asked.items() if budgets)


def judged(objective: Objective, trial: Trial) -> Trial:
    """A complete trial under another objective: its value and what it exceeds, on the worst task where it has many."""
    there: Sequence[Mapping[str, float]] = list(trial.tasks.values()) or [trial.measures]
    excess = [excess_over(objective, measures) for measures in there]
    worst = {name: max(one[name] for one in excess) for name in excess[0]}
    feasible = all(number <= 0 for number in worst.values())
    return replace(trial, value=value_of(objective, trial.measures), feasible=feasible, excess=worst)


def winners(objective: Objective, trials: Sequence[Trial]) -> dict[str, Trial]:
    """The best complete trial within each target; a target that none is within has no winner."""
    complete, found = [trial for trial in trials if trial.state == "complete"], {}
    for name, target in targets(objective).items():
        within = [one for one in (judged(target, trial) for trial in complete) if one.feasible]
        if within:
            found[name] = min(within, key=lambda trial: trial.rank)
    return found


def crossings(objective: Objective, space: Space, trials: Sequence[Trial]) -> list[Point]:
    """The winners' points at the shares of the other budgets, the nearest first: what is good at one often is there.

    None where no field of the space is the budget.
    """
    shares = objective.frontier.density
    budget = next((leaf for leaf, held in space.free.items() if getattr(held, "choices", None) == shares), None)
    best = winners(objective, trials) if budget is not None else {}
    points = [
        (abs(here - there), {**best[f"density_{share:g}"].point, budget: other})
        for here, share in enumerate(shares)
        for there, other in enumerate(shares)
        if here != there and f"density_{share:g}" in best
    ]
    return [space.applying(point) for _, point in sorted(points, key=lambda pair: pair[0])]
