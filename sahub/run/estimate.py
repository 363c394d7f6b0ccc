"""What a run would do, and what it would take: seconds as far as the cache knows, memory by a rule."""

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import cache
from itertools import product
from statistics import fmean

from sahub.compute.devices import number_of_workers
from sahub.config.cell import Cell
from sahub.config.settings import PHASES
from sahub.engine.evaluate import PLANNED
from sahub.errors import SahubError
from sahub.fidelities import is_last
from sahub.files.journal import Journal
from sahub.models.weights import digest_of_model
from sahub.run.memory import contexts_of, longest, memory_of
from sahub.search.objective import fidelity_of
from sahub.search.trial import Limits, space_of_cell

RULE = (
    "seconds: those of contexts of the same model, task and length (half to twice) in the cache, times contexts and "
    "stacks, over the workers; what the cache holds already costs none. memory: of each worker, the weights as they "
    "are run, keys and values of the contexts that are held, a pass over the longest one, its indexes, and its trace "
    "where stacks are replayed."
)


def lines(cells: Sequence[Cell]) -> list[str]:
    """A line per cell, then all of them together and the rule."""
    found = [line(cell) for cell in cells]
    known = [seconds_of(cell) for cell in cells]
    total = sum(seconds for seconds in known if seconds is not None)
    unknown = known.count(None)
    rest = f", and {unknown} of which the cache knows nothing" if unknown else ""
    took = f"{_time(total)}{rest}" if unknown < len(known) else "unknown seconds"
    every = f"{_number(len(cells), 'cell')}: {took}"
    return [*found, *shortened(cells), every, RULE]


def shortened(cells: Sequence[Cell]) -> list[str]:
    """A line for every phase and length of prompts that a limit makes shorter than the task asks for."""
    found: Counter[tuple[str, int, int, str]] = Counter()
    for cell, phase in product(cells, PHASES):
        settings, limits = cell.settings, getattr(cell.settings, phase)
        if phase not in settings.phases or not settings.task.length:
            continue
        with suppress(SahubError):  # of a model that cannot be read, which will be said when it is loaded
            most = longest(cell, limits)
            if settings.task.length > most:
                why = f"{phase if most == limits.max_context_length else 'model'}.max_context_length"
                found[phase, settings.task.length, most, why] += 1
    return [
        f"{phase}: prompts of task.length={length} have {most} tokens, the limit of {why}, in {_number(count, 'cell')}"
        for (phase, length, most, why), count in found.items()
    ]


def line(cell: Cell) -> str:
    """Phases, number of points, seconds and memory of a cell."""
    settings, free = cell.settings, space_of_cell(cell).free
    parts = [f"{cell.directory.name}: {' and '.join(settings.phases)}"]
    if "search" in settings.phases:
        parts.append(f"{_number(points_of(cell), 'point')} over {', '.join(free) or 'nothing free'}")
    seconds = seconds_of(cell)
    parts.append("unknown seconds" if seconds is None else _time(seconds))
    parts.append(f"{memory_of(cell).together / 2**30:.2g} GiB")
    return ", ".join(parts)


def points_of(cell: Cell) -> int:
    """Points that the search tries at most, the default among them."""
    space, most = space_of_cell(cell), cell.settings.search.num_samples
    everything = space.points(most)
    return most if everything is None else max(1, len(everything))


def trials_of(cell: Cell) -> int:
    """Trials of the search at most: its points, and those that generate answers afterwards."""
    return points_of(cell) + _promoted(cell)


def _promoted(cell: Cell) -> int:
    """Points that generate answers after a search that does not."""
    search = cell.settings.search
    more = search.promote + search.calibrate
    return min(points_of(cell), more + 1) if more and _is_cheap(cell) else 0


def _is_cheap(cell: Cell) -> bool:
    """Whether the search itself generates no answers."""
    return not is_last(fidelity_of(cell.settings))


def seconds_of(cell: Cell) -> float | None:
    """Of the whole cell where every phase is known, without loading anything; no trial counts as pruned."""
    settings, total = cell.settings, 0.0
    if "search" in settings.phases:
        search, points = settings.search, points_of(cell)
        seen = min(search.max_requests, search.decide or search.max_requests)
        answers = _promoted(cell) * seen + (2 * search.decide if points > 1 else 0)
        one = _per_context(cell, search, generated=not _is_cheap(cell))
        dear = _per_context(cell, search, generated=True) if answers else 0.0
        if one is None or dear is None:
            return None
        total += search.max_requests * points * one + answers * dear
    if "validate" in settings.phases:
        contexts = contexts_of(cell, "validate")
        one = _per_context(cell, settings.validate, generated=True)
        if one is None or contexts is None:
            return None
        total += contexts * one * (3 if settings.validate.compare_default else 2)
    return total / number_of_workers(cell.settings.compute)


def _per_context(cell: Cell, limits: Limits, *, generated: bool) -> float | None:
    """Mean seconds of a context with one stack, as they were measured."""
    settings = cell.settings
    length = longest(cell, limits)
    wanted = (_digest(cell), f"{settings.task.benchmark}/{settings.task.subset}", generated)
    found = [
        seconds
        for digest, name, was_generated, tokens, seconds in _kept(settings.cache_dir)
        if (digest, name, was_generated) == wanted and length / 2 <= tokens <= length * 2
    ]
    return fmean(found) if found else None


@cache
def _kept(folder: str | None) -> list[tuple[str, str, bool, int, float]]:
    return list(_read(Journal(folder)))


def _read(journal: Journal, most: int = 2000) -> Iterator[tuple[str, str, bool, int, float]]:
    """Model, task, whether answers were generated, tokens and seconds of the newest entries."""
    shape = {
        "key": {"model": {"files": str}, "plan": list},
        "value": {"answers": [{"n_context": int}], "seconds": float},
    }
    for entry in journal.newest(most, shape):
        key, value = entry["key"], entry["value"]
        if len(key["plan"]) == len(PLANNED) and value["answers"]:
            plan = dict(zip(PLANNED, key["plan"], strict=True))
            tokens, seconds = value["answers"][0]["n_context"], value["seconds"]
            yield key["model"]["files"], plan["task"], is_last(plan["fidelity"]), tokens, seconds


def _digest(cell: Cell) -> str:
    return digest_of_model(cell.settings.model.path, cell.settings.model.revision, cell.settings.cache_dir)


def _time(seconds: float) -> str:
    return f"about {seconds:.0f} s" if seconds < 600 else f"about {seconds / 60:.0f} min"


def _number(count: int, what: str) -> str:
    return f"{count} {what}{'' if count == 1 else 's'}"
