"""Samplers: seeded, told of targets, without repeats; grids that are cut by name; spaces with conditions."""

import logging
from dataclasses import replace

import pytest
from arithmetic import PINNED, SMALL, figures, run

from sahub.builders.space import overrides_of, space_of
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError
from sahub.run.check import check_cell
from sahub.search.generations import generations
from sahub.search.samplers.grid import cut, points
from sahub.search.trial import Trial, space_of_cell

FREE = ["objective=default", "builder.stages.sink.sink_size=4", "builder.stages.local.window_size=8"]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "nsga2"])
def test_every_sampler_repeats_by_its_seed_starts_at_the_default_and_asks_nothing_twice(sampler):
    few = [*FREE, f"sampler={sampler}", "search.num_samples=7", "search.batch=2"]
    first, again, other = run(*few), run(*few), run(*few, "search.seed=1")
    assert figures(first) == figures(again)
    assert figures(first)[1:] != figures(other)[1:]
    asked = [trial.overrides for trial in first.trials]
    assert len(asked) == len(set(asked)) == 7
    assert asked[0] == first.default.overrides
    assert "builder.stages.quest.page_size=16" in asked[0]


@pytest.mark.parametrize("sampler", ["tpe", "random", "grid", "nsga2"])
def test_a_small_space_is_listed_whatever_the_sampler(sampler):
    study = run(*PINNED, f"sampler={sampler}", "search.num_samples=30")
    assert len(study.trials) == 24
    assert "builder.stages.quest.page_size=32" in study.best.overrides


def test_a_default_outside_of_a_small_space_costs_none_of_its_points():
    study = run(*PINNED[:2], "builder.search.quest.page_size.choices=[4,8,32]", "search.num_samples=12")
    assert len(study.trials) == 13
    assert sum("page_size=16" in " ".join(trial.overrides) for trial in study.trials) == 1


def test_samplers_differ():
    found = {name: [t.overrides for t in run(*FREE, f"sampler={name}").trials] for name in ("tpe", "random", "nsga2")}
    assert found["tpe"] != found["random"] != found["nsga2"]


def test_settings_of_a_sampler_move_its_points():
    def points(*overrides):
        return [trial.overrides for trial in run(*FREE, *overrides, "search.batch=3", "search.num_samples=8").trials]

    assert points("sampler.n_startup_trials=100") != points("sampler.n_startup_trials=1")
    assert points("sampler.multivariate=false") != points("sampler.multivariate=true")
    assert points("sampler=nsga2", "sampler.population_size=2") != points("sampler=nsga2")
    with pytest.raises(ConfigError, match=r"sampler\.population_size=1: must be at least 2"):
        points("sampler.population_size=1")


def test_a_grid_has_all_choices_and_ends_of_ranges():
    space = space_of(
        {
            "stages": {"quest": {"page_size": 16, "density": 0.1, "min_pages": 1, "few": 2}},
            "search": {
                "quest": {
                    "page_size": {"choices": [8, 16]},
                    "density": {"low": 0.01, "high": 1.0, "log": True},
                    "min_pages": {"low": 1, "high": 100},
                    "few": {"low": 1, "high": 3},
                }
            },
        }
    )
    assert cut(space.free["quest.page_size"], 5) == [8, 16]
    assert cut(space.free["quest.density"], 3) == [0.01, 0.1, 1.0]
    assert cut(space.free["quest.min_pages"], 3) == [1, 50, 100]
    assert list(cut(space.free["quest.few"], 3)) == [1, 2, 3]
    listed = points(space, compose_cell(["sampler=grid", "sampler.points=3"]).settings)
    assert len(listed) == 2 * 3 * 3 * 3
    assert len({overrides_of(point) for point in listed}) == len(listed)


def test_a_grid_that_is_too_large_is_cut_and_says_so_once(caplog):
    with caplog.at_level(logging.WARNING):
        study = run(*FREE, "sampler=grid", "sampler.points=3")
    assert len(study.trials) == 12
    said = [record.message for record in caplog.records if "grid" in record.message]
    assert said == ["sampler=grid: 72 points in an order of the seed, of which 12 are tried"]
    densities = {part for trial in study.trials[1:] for part in trial.overrides if "quest.density" in part}
    assert densities <= {f"builder.stages.quest.density={value}" for value in ("0.02", "0.1", "0.5")}


def test_a_grid_that_nobody_can_list_is_refused():
    with pytest.raises(ConfigError, match=r"sampler\.points=1000: a grid over 5 fields has more than 100000 points"):
        run("objective=default", "sampler=grid", "sampler.points=1000")


@pytest.mark.parametrize("sampler", ["tpe", "nsga2"])
def test_targets_limits_and_states_are_told_to_the_sampler(sampler):
    """Where the best values are above the target, most points that are asked late are within it all the same."""
    space = space_of_cell(cell := compose_cell([*SMALL, *FREE, f"sampler={sampler}", "search.num_samples=100"]))
    common = {"fidelity": "teacher", "overrides": overrides_of(space.default)}
    default = Trial(state="complete", value=0.9, spent=0.1, excess={"density": -0.1}, **common)
    kept = []
    for generation in generations(space, cell.settings, [default], lambda point: point["quest.page_size"] == 4):
        for point in generation.points:
            density = point["quest.density"]
            measured = {"value": 1 - density, "spent": density, "excess": {"density": density - 0.2}}
            kept.append(Trial(state="complete", point=point, **measured, **common))
        kept[-1] = replace(kept[-1], state="pruned", value=None, measures={}, excess={}, rungs={2: 0.5})
        generation.tell(kept[-len(generation.points) :])
    told = generation.study.trials
    assert {trial.state.name for trial in told if trial.constraints.get("limits", 0) > 0} == {"PRUNED"}
    assert told[0].constraints == {"density": -0.1}
    complete = [trial for trial in told[1:] if trial.state.name == "COMPLETE"]
    assert all(t.constraints["density"] == pytest.approx(t.params["quest.density"] - 0.2) for t in complete)
    assert [t.intermediate_values for t in told if t.state.name == "PRUNED" and not t.constraints] == [
        {2: 0.5} if sampler == "tpe" else {}
    ] * 25
    late = [trial.point["quest.density"] for trial in kept[60:]]
    assert sum(density <= 0.2 for density in late) > 0.6 * len(late)


def test_nsga2_minimises_density_too_and_the_winner_is_the_best_value():
    study = run(*FREE, "sampler=nsga2", "search.num_samples=16")
    allowed = [trial for trial in study.trials if trial.feasible]
    assert study.best == min(allowed, key=lambda trial: trial.rank)


def test_rejected_points_are_asked_once_and_do_not_count():
    study = run(*FREE, "builder.limits.aux_bits=40", "search.num_samples=8")
    rejected = [trial for trial in study.trials if trial.state == "rejected"]
    assert rejected
    assert study.counts()["complete"] == 8
    assert len({trial.overrides for trial in study.trials}) == len(study.trials)


# Conditional spaces


def conditional(when, **more):
    return space_of(
        {
            "stages": {"quest": {"page_size": 16, "label_bits": 4, "density": 0.1}},
            "search": {
                "quest": {
                    "label_bits": {"choices": [2, 4, 8], "when": when},
                    "page_size": {"choices": [8, 16, 32]},
                    **more,
                }
            },
        }
    )


@pytest.mark.parametrize("when", [{"quest.page_size": [8, 32]}, {"quest": {"page_size": [8, 32]}}])
def test_a_leaf_is_asked_only_where_its_condition_holds(when):
    space = conditional(when)
    assert list(space.free) == ["quest.page_size", "quest.label_bits"]  # after what it waits for
    assert space.default == {"quest.page_size": 16}
    points = [overrides_of(point) for point in space.points()]
    assert len(points) == len(set(points)) == 1 + 2 * 3
    assert ("builder.stages.quest.page_size=16",) in points


def test_conditions_on_fields_that_are_not_free_are_answered_at_once():
    assert list(conditional({"quest.density": 0.1}).free) == ["quest.label_bits", "quest.page_size"]
    assert list(conditional({"quest.density": [0.2]}).free) == ["quest.page_size"]
    chained = conditional({"quest.density": [0.2]}, density=None)
    assert list(chained.free) == ["quest.page_size"]


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ({"quest.nope": [1]}, "builder.search.quest.label_bits.when.quest.nope: builder.stages has no quest.nope"),
        (
            {"quest.page_size": [7]},
            "when.quest.page_size=7: quest.page_size is never that; it must be one of 8, 16, 32",
        ),
        ({"quest.label_bits": [2]}, "builder.search.quest.label_bits.when: waits for itself"),
        ([1], "builder.search.quest.label_bits.when=[1]: must be a mapping of fields to values"),
    ],
)
def test_a_wrong_condition_is_named(when, message):
    with pytest.raises(ConfigError) as caught:
        conditional(when)
    assert message in str(caught.value)


def test_a_condition_on_a_continuous_range_is_refused():
    with pytest.raises(ConfigError, match=r"quest\.density is a continuous range"):
        conditional({"quest.density": [0.2]}, density={"low": 0.1, "high": 0.5})


WAITING = "+builder.search.quest.label_bits.when={quest.page_size:[4,8]}"


@pytest.mark.parametrize("sampler", ["tpe", "random", "nsga2", "grid"])
def test_inactive_leaves_make_no_duplicates_and_keep_their_default(sampler):
    study = run(*FREE, WAITING, f"sampler={sampler}", "search.num_samples=16")
    asked = [trial.overrides for trial in study.trials]
    assert len(asked) == len(set(asked)) == 16
    for one in asked:
        fields = dict(item.removeprefix("builder.stages.quest.").split("=") for item in one)
        assert ("label_bits" in fields) == (fields["page_size"] in ("4", "8"))


def test_a_conditional_space_is_listed_without_duplicates():
    study = run(*PINNED, WAITING, "search.num_samples=30")
    assert len(study.trials) == 2 * 4 + 4
    assert len({trial.overrides for trial in study.trials}) == len(study.trials)


def test_conditions_are_checked_before_any_model_is_loaded():
    check_cell(compose_cell([WAITING]))
    with pytest.raises(ConfigError, match=r"quest\.page_size is never that"):
        check_cell(compose_cell(["+builder.search.quest.label_bits.when={quest.page_size:[5]}"]))
    wrong = ["builder.search.quest.label_bits.choices=[4,77]", WAITING]  # tried where it applies
    with pytest.raises(ConfigError, match=r"builder\.search\.quest\.label_bits allows 77"):
        check_cell(compose_cell(wrong))


def test_a_pinned_field_settles_the_conditions_on_it():
    assert "quest.label_bits" in space_of_cell(compose_cell([*SMALL, WAITING, "builder.stages.quest.page_size=8"])).free
    free = space_of_cell(compose_cell([*SMALL, WAITING, "builder.stages.quest.page_size=16"])).free
    assert "quest.label_bits" not in free
