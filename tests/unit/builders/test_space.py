"""Search trees as distributions, points as overrides, and settings as the overrides that give them again."""

import pytest

from sahub.builders.space import overrides_of, space_of
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError
from sahub.results.reproduce import command_line, merged, reproducing
from sahub.search.trial import space_of_cell

STAGES = {"sink": {"sink_size": {"of_budget": 0.1, "at_least": 4}}, "quest": {"page_size": 16, "density": 0.1}}


def tree(**search):
    return {"stages": STAGES, "search": search}


def test_leaves_mirror_stages_and_defaults_are_the_stages_values():
    space = space_of(
        tree(
            sink={"sink_size": {"of_budget": {"low": 0.01, "high": 0.5, "log": True}}},
            quest={"page_size": {"choices": [8, 16]}},
        )
    )
    assert list(space.free) == ["sink.sink_size.of_budget", "quest.page_size"]
    assert space.default == {"sink.sink_size.of_budget": 0.1, "quest.page_size": 16}
    assert space.points() is None


def test_finite_spaces_are_listed():
    space = space_of(tree(quest={"page_size": {"choices": [8, 16]}, "density": {"low": 0.1, "high": 0.3, "step": 0.1}}))
    points = space.points()
    assert len(points) == 6
    assert {point["quest.page_size"] for point in points} == {8, 16}


def test_points_are_overrides_of_four_digits():
    point = {"sink.sink_size.of_budget": 0.123456789, "quest.page_size": 16, "quest.flag": True, "quest.none": None}
    assert overrides_of(point) == (
        "builder.stages.sink.sink_size.of_budget=0.1235",
        "builder.stages.quest.page_size=16",
        "builder.stages.quest.flag=true",
        "builder.stages.quest.none=null",
    )


@pytest.mark.parametrize(
    ("tokens", "choices"), [(None, (8, 16, 64)), (256, (8, 16, 64)), (255, (8, 16)), (63, (8,)), (31, (8,)), (1, (8,))]
)
def test_a_page_is_at_most_its_part_of_the_budget(tokens, choices):
    pages = {"choices": [8, 16, 64], "in_budget": 4}
    space = space_of(tree(quest={"page_size": pages}), budget_tokens=tokens)
    assert space.free["quest.page_size"].choices == choices


def test_the_budget_of_a_cell_is_of_the_longest_context_that_it_searches():
    def pages(*overrides):
        cell = compose_cell(["model.max_context_length=32768", "builder=quest", *overrides])
        return space_of_cell(cell).free["quest.page_size"].choices

    assert pages("search.max_context_length=4096", "objective=sparsity_5") == (4, 8, 16, 32)
    assert pages("task.length=1024", "objective=sparsity_2") == (4,)
    assert pages("search.max_context_length=1024", "objective=default") == (4, 8, 16, 32, 64, 128)  # up to half


def test_shares_that_best_files_of_before_name_are_still_there():
    for name in ("quest", "streaming_llm", "sink", "local", "vattention_pqcache"):
        for size in ("sink.sink_size", "local.window_size"):
            leaves = [f"builder.stages.{size}.of_budget=0.5", f"builder.stages.{size}.at_least=4"]
            cell = compose_cell([f"builder={name}"])
            label, field = size.split(".")
            if isinstance(cell.builder["stages"].get(label, {}).get(field), dict):
                assert compose_cell([f"builder={name}", *leaves]).builder["stages"][label][field]["at_least"] == 4


@pytest.mark.parametrize(
    ("search", "message"),
    [
        ({"quest": {"page_size": 8}}, "builder.search.quest.page_size=8: must be a mapping"),
        (
            {"quest": {"page_size": {"low": 8}}},
            "builder.search.quest.page_size: must have choices, or both low and high",
        ),
        ({"quest": {"page_size": {"low": 8, "high": 4}}}, "builder.search.quest.page_size="),
        ({"quest": {"page_size": {"choices": []}}}, "must be a list with at least one value"),
        (
            {"quest": {"page_size": {"choices": [8], "in_budget": 0}}},
            "builder.search.quest.page_size.in_budget=0: must be at least 1, beside choices of whole tokens",
        ),
        ({"quest": {"density": {"low": 0.1, "high": 0.2, "in_budget": 4}}}, "beside choices of whole tokens"),
        ({"quest": {"page_size": {"low": 1, "high": 2, "lgo": True}}}, "builder.search.quest.page_size.lgo: unknown"),
        (
            {"quest": {"pagesize": {"choices": [8]}}},
            "builder.search.quest.pagesize: builder.stages has no quest.pagesize",
        ),
    ],
)
def test_a_wrong_search_tree_is_named(search, message):
    with pytest.raises(ConfigError) as caught:
        space_of(tree(**search))
    assert message in str(caught.value)


@pytest.mark.parametrize(
    "overrides",
    [
        [],
        ["builder=streaming_llm", "objective=default"],
        ["search.num_samples=7", "protocol.dense_layers=[0,1]", "task.path='/data/some folder/x'"],
        ["objective.density=0.07", "builder.stages.quest.min_pages=3", "validate.max_requests=null"],
        ["~builder.stages.local", "~builder.search.local", "~builder.search.quest"],
        ["model=hf", "model.path=org/name", "builder.limits.aux_bits=64"],
    ],
)
def test_reproducing_overrides_compose_to_the_same_cell(overrides):
    cell = compose_cell(overrides)
    again = compose_cell(reproducing(cell))
    assert again.settings == cell.settings
    assert again.builder == cell.builder
    assert again.name == cell.name


def test_later_overrides_win_and_lines_are_quoted():
    assert merged(["a=1", "++b=2"], ["b=3"]) == ["a=1", "b=3"]
    assert command_line("search", ["a=[1,2]"]) == "python -m pipelines.search 'a=[1,2]'"
