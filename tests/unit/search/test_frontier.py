"""One search, every budget: winners within each target, all from the same trials; what mattered; what kv spends."""

import csv
import json
from dataclasses import replace

import optuna
import pytest
from arithmetic import PINNED, SMALL, Arithmetic, figures, kl, requests, run

from sahub.config.cell import compose_cell
from sahub.results.cell_files import write_study
from sahub.search.frontier import costs, targets, winners
from sahub.search.importances import importances

FREE = ["objective=frontier", *PINNED, "search.num_samples=40", "search.batch=8"]
DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.5)


def error(quest, text: str) -> float:
    """Better with more keys, and with more bits; at best where both are most."""
    return kl(quest, text) + 0.05 / quest.density


@pytest.fixture(scope="module")
def study():
    return run(*FREE, work=Arithmetic(kl=error), deciding=requests(4, "o"))


def test_every_budget_has_the_best_of_the_trials_that_meet_it(study):
    complete = [trial for trial in study.trials if trial.state == "complete"]
    assert set(study.frontier) == {*(f"density_{share:g}" for share in DENSITIES), "aux_bits_32", "aux_bits_64"} | {
        "aux_bits_128"
    }
    for name, found in study.frontier.items():
        measure, _, bound = name.rpartition("_")
        within = [one for one in complete if one.measures[measure] <= float(bound) * 1.001]
        assert found.trial.overrides == min(within, key=lambda one: one.rank).overrides
        assert found.trial.feasible


def test_one_search_reaches_every_density(study):
    best = [study.frontier[f"density_{share:g}"].trial for share in DENSITIES]
    assert [one.measures["density"] for one in best] == pytest.approx(DENSITIES)
    pages = {one.point["quest.page_size"] for one in best}
    assert pages == {32}  # as is best, whatever the budget


def test_winners_are_checked_on_contexts_that_chose_nothing(study):
    assert {found.checked.contexts for found in study.frontier.values()} == {4}
    assert {found.checked.fidelity for found in study.frontier.values()} == {"teacher"}


def test_the_winner_of_the_cell_is_that_of_its_budget_and_meets_the_default(study):
    assert study.best.overrides == study.frontier["density_0.1"].trial.overrides
    assert study.best in study.trials
    assert study.decision is not None
    assert {trial.fidelity for trial in study.trials} == {"teacher"}  # nothing is promoted


def test_fewer_keys_are_no_merit_where_each_budget_has_its_own_winner():
    """A little better with more keys, in each context: no race ends where more is spent, and each share is used."""
    work = Arithmetic(kl=lambda quest, text: kl(quest, text) + 1e-4 / quest.density)
    found = run(*FREE, work=work, deciding=requests(4, "o"))
    assert [found.frontier[f"density_{share:g}"].trial.point["quest.density"] for share in DENSITIES] == [*DENSITIES]


@pytest.mark.parametrize("sampler", ["tpe", "nsga2", "random"])
def test_a_frontier_repeats_with_every_sampler(sampler):
    few = [*FREE, f"sampler={sampler}", "search.num_samples=16", "scheduler=race"]
    assert figures(run(*few, count=8)) == figures(run(*few, count=8))


def test_a_race_ends_no_trial_for_spending_less():
    raced = run(*FREE, "scheduler=race", work=Arithmetic(kl=error), count=12)
    lost = [trial for trial in raced.trials if trial.state == "pruned"]
    assert lost
    assert {name for name in raced.frontier if "density" in name} == {f"density_{share:g}" for share in DENSITIES}


def test_targets_that_nothing_meets_have_no_winner():
    objective = compose_cell(["objective=frontier"]).settings.objective
    assert winners(objective, []) == {}
    assert len(targets(objective)) == 8
    assert costs(compose_cell(["objective=sparsity_10"]).settings.objective, run(*PINNED).trials[0]) == ()


def test_its_files_are_best_files_with_the_budget_as_their_target(study, tmp_path):
    cell = replace(compose_cell([*SMALL, *FREE]), directory=tmp_path)
    folder = write_study(cell, study, requests(), ["objective=frontier"])
    best = json.loads((folder / f"{cell.name}_density_0.05.json").read_text("utf-8"))
    again = compose_cell([*best["overrides"], "builder=quest"]).settings.objective
    assert (again.density, again.frontier.density, again.budget_search) == (0.05, (), None)
    assert best["figures"]["density"] == pytest.approx(0.05)
    assert best["checked_figures"]["answer_kl"] > 0
    bits = json.loads((folder / f"{cell.name}_aux_bits_32.json").read_text("utf-8"))
    assert bits["figures"]["aux_bits"] <= 32
    with (folder / f"{cell.name}_frontier.csv").open(encoding="utf-8") as file:
        assert [row["budget"] for row in csv.DictReader(file)] == list(study.frontier)


# Importances


def test_importances_find_what_moved_the_value():
    found = {}
    for name in ("page_size", "label_bits"):
        study = run(
            *PINNED, "search.num_samples=24", work=Arithmetic(kl=lambda quest, text, name=name: getattr(quest, name))
        )
        rows = [
            optuna.trial.create_trial(value=one.value, params=dict(one.point), distributions=DISTRIBUTIONS)
            for one in study.trials
        ]
        found[name] = importances(rows)
        assert importances(rows) == found[name]
        assert sum(found[name].values()) == pytest.approx(1)
    assert all(max(shares, key=shares.get) == f"quest.{name}" for name, shares in found.items())


DISTRIBUTIONS = {
    "quest.page_size": optuna.distributions.CategoricalDistribution([4, 8, 16, 32, 64, 128]),
    "quest.label_bits": optuna.distributions.CategoricalDistribution([2, 4, 8, 16]),
}


def test_too_few_trials_and_fields_that_never_differ_have_no_importances():
    assert importances([]) == {}
    same = optuna.trial.create_trial(
        value=1.0, params={"quest.page_size": 4}, distributions={"quest.page_size": DISTRIBUTIONS["quest.page_size"]}
    )
    assert importances([same] * 9) == {}
