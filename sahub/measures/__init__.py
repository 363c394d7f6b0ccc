"""What a stack is judged by: a measure a file, found by its name (`objective.measure`)."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol, TypeAlias

from sahub.extensions import all_of


class Answered(Protocol):
    """One question answered."""

    @property
    def score(self) -> float | None:
        """Of its benchmark, None where there is no gold answer."""

    @property
    def measures(self) -> Mapping[str, float]:
        """What `of_answer` found, by measure."""


class Measured(Protocol):
    """A stack over its requests."""

    @property
    def answers(self) -> Sequence[Answered]:
        """Every question's."""

    @property
    def micro(self) -> Sequence[Mapping[str, Any]]:
        """A row per question, sparse layer and phase."""


Tallies: TypeAlias = Mapping[tuple[int, str], Any]


@dataclass(frozen=True, kw_only=True)
class Measure:
    """A number of a stack over its requests; lower is better unless it says otherwise. `step_seconds` is the search's.

    fidelity     the cheapest that has it, a module of sahub.fidelities
    column       its name in tables of trials (None: its own)
    of_answer    dense logits, sparse logits (fp32 [n, vocabulary], before each token), the dense answer's ids [n] -> a
                 number of the answer; without `of_run` the measure is its mean over questions
    of_trace     what a replay counted, (layer, phase) -> sums -> a number of the answer, whose mean it is too
    of_run       a stack over its requests -> the measure, None where it was not taken
    of_measures  the objective's keys and the other measures -> the measure, where an objective makes it of them
    ties         a measure of the same fidelity that orders the stacks which this one, of whole tokens, finds equal
    reads_error  whether it needs attention errors, which `protocol.measure_error` can switch off
    log_axis     whether it spans orders of magnitude
    """

    fidelity: str
    column: str | None = None
    of_answer: Callable[[Any, Any, Sequence[int]], float] | None = None
    of_trace: Callable[[Tallies], float] | None = None
    of_run: Callable[[Measured], float | None] | None = None
    of_measures: Callable[[Any, Mapping[str, float]], float] | None = None
    higher_is_better: bool = False
    ties: str | None = None
    reads_error: bool = False
    log_axis: bool = False


MEASURES: dict[str, Measure] = {module.__name__.rpartition(".")[2]: module.MEASURE for module in all_of("measures")}


def of_answer(dense: Any, sparse: Any, ids: Sequence[int]) -> dict[str, float]:
    """Every measure of one answer, see Measure."""
    return {name: one.of_answer(dense, sparse, ids) for name, one in MEASURES.items() if one.of_answer}


def of_trace(tallies: Tallies) -> dict[str, float]:
    """Every measure of one answer that a replay has, see Measure."""
    return {name: one.of_trace(tallies) for name, one in MEASURES.items() if one.of_trace}


def of_run(run: Measured) -> dict[str, float]:
    """Every measure of a stack over its requests that was taken."""
    found: dict[str, float | None] = {}
    for name, one in MEASURES.items():
        if one.of_run:
            found[name] = one.of_run(run)
        elif run.answers and all(name in answer.measures for answer in run.answers):
            found[name] = fmean(answer.measures[name] for answer in run.answers)
    return {name: number for name, number in found.items() if number is not None}
