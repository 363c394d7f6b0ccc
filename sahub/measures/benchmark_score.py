"""The benchmark's own score of the stack's answers."""

from statistics import fmean

from sahub.measures import Measure, Measured


def _of_run(run: Measured) -> float | None:
    graded = [answer.score for answer in run.answers if answer.score is not None]
    return fmean(graded) if graded else None


MEASURE = Measure(fidelity="generate", column="score", of_run=_of_run, higher_is_better=True)
