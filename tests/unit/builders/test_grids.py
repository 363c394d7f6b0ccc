"""`space=grid`: the predecessor's values in place of the builder's ranges, by target where it had them so."""

import pytest
from arithmetic import run

from sahub.builders.space import overrides_of
from sahub.config.builder_tree import grid_at
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError
from sahub.results.reproduce import merged, reproducing
from sahub.run.check import check_cell
from sahub.search.trial import attention_of, space_of_cell


def space(*overrides):
    return space_of_cell(compose_cell(["space=grid", *overrides]))


@pytest.mark.parametrize(
    ("builder", "size"),
    [
        ("quest", 5 * 4),
        ("double_sparsity", 4 * 5),
        ("magic_pig", 4 * 4),
        ("pqcache", 2 * 3),
        ("socket", 3 * 7 * 4),
        ("oracle_topk", 1),
        ("oracle_topp", 2 + 13),
        ("random_sampling", 1),
        ("streaming_llm", 1),
    ],
)
def test_grids_are_as_large_as_the_predecessors(builder, size):
    assert len(space(f"builder={builder}").points()) == size


@pytest.mark.parametrize(
    ("target", "sizes"),
    [(2, (144, 144)), (5, (192, 144)), (10, (144, 324)), (15, (192, 324)), (20, (144, 324))],
)
def test_grids_by_target_too(target, sizes):
    for builder, size in zip(("oracle", "pqcache"), sizes, strict=True):
        assert len(space(f"builder=vattention_{builder}", f"objective=sparsity_{target}").points()) == size


def test_between_two_targets_the_nearer_one_counts():
    grid = {"stage": {"field": {2: [1], 10: [2, 3], 50: [4]}, "other": {"low": 0.0, "high": 1.0}}}
    for target, values in ((0.001, [1]), (0.04, [1]), (0.05, [2, 3]), (0.1, [2, 3]), (0.3, [4]), (1.0, [4])):
        assert grid_at(grid, target) == {"stage": {"field": {"choices": values}, "other": {"low": 0.0, "high": 1.0}}}


def test_the_search_tries_the_grid_and_its_lines_give_it_again():
    study = run("space=grid", "search.num_samples=50")
    assert study.counts()["complete"] == 20  # the default is one of them
    cell = compose_cell(["space=grid", "builder=vattention_oracle"])
    check_cell(cell)
    for point in (space_of_cell(cell).default, space_of_cell(cell).points()[5]):
        again = compose_cell(merged(reproducing(cell), overrides_of(point)))
        assert not space_of_cell(again).free
        assert attention_of(again, ()) == attention_of(cell, overrides_of(point))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["space=grid", "builder.search.quest.page_size=null"], "builder.search.quest.page_size=null: space=grid does"),
        (["builder.grid.quest.page_size=[8]"], "builder.grid.quest.page_size=[8]: space=continuous does not read"),
        (["space=gird"], "space=gird: must be one of continuous, grid"),
    ],
)
def test_what_is_not_read_is_an_error(overrides, message):
    with pytest.raises(ConfigError) as caught:
        compose_cell(overrides)
    assert message in str(caught.value)


def test_a_typed_grid_and_a_typed_field_narrow_it():
    assert len(space("builder.grid.quest.page_size=[8,16]").points()) == 8
    assert list(space("builder.stages.quest.page_size=8").free) == ["quest.label_bits"]
