"""Builders compared with each other: the differences of their answers to the same questions."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from sahub.config.group_schemas import Builder
from sahub.config.settings import Tracker
from sahub.engine.outcome import Outcome
from sahub.results.cell_result import CellResult
from sahub.results.validate import difference, graded, interval


def differences(result: CellResult, found: Sequence[CellResult]) -> dict[str, dict[str, Any]]:
    """Score minus that of each builder in `validate.compare_with`, with its 95 % interval, paired by context.

    Compared is the cell that differs in its builder alone and answered the same questions; a builder without one is
    left out.
    """
    mine, differing = _graded(result), {}
    for name in result.cell.settings.validate.compare_with:
        others = (other for other in found if other.cell.choices.builder == name != result.cell.choices.builder)
        for other in others:
            theirs = _graded(other)
            if mine and theirs and _asked(result, mine) == _asked(other, theirs):
                differing[name] = interval(difference(mine, theirs))
                break
    return differing


def _graded(result: CellResult) -> Outcome | None:
    """The answers of a cell's validation, where it ended well and some have a score."""
    outcome = result.validation.sparse if result.validation and result.figures else None
    return outcome if outcome and graded(outcome) else None


def _asked(result: CellResult, outcome: Outcome) -> tuple[Any, ...]:
    settings = replace(result.cell.settings, builder=Builder(), tracker=Tracker(), compose=())
    questions = [(answer.example_id, answer.question_id) for answer in graded(outcome)]
    return settings, questions
