"""Which of the promoted points wins: ranked by the cheap measure, held to the answers of the default."""

import pytest
from arithmetic import PINNED, Arithmetic, run

PROMOTED = [*PINNED, "search.promote=4", "search.calibrate=2"]


def page_size(trial) -> int:
    """The free field that the formula's optimum lies far from the default in."""
    [found] = [item for item in trial.overrides if "page_size=" in item]
    return int(found.rpartition("=")[2])


def test_the_best_ranked_wins_where_its_answers_are_no_worse():
    study = run(*PROMOTED)
    assert page_size(study.best) == 32
    assert study.best.rank < study.default.rank


def test_a_point_with_worse_answers_does_not_win_however_it_ranks():
    study = run(*PROMOTED, work=Arithmetic(score=lambda quest, text: float(quest.page_size == 16)))
    assert page_size(study.best) == page_size(study.default) == 16
    assert study.regret == 0


@pytest.mark.parametrize(("dense_score", "winner"), [(1.0, 16), (0.0, 32)])
def test_where_only_dense_answers_are_right_the_default_stays(dense_score, winner):
    study = run(*PROMOTED, work=Arithmetic(score=lambda quest, text: 0.0, dense_score=dense_score))
    assert page_size(study.best) == winner
