"""`builder=compose`: stacks from what methods say of themselves, lines that give them again, and errors that name."""

from dataclasses import dataclass, field

import pytest

from sahub import extensions
from sahub.attention.stage import Stage
from sahub.builders.build import register_method
from sahub.builders.space import overrides_of
from sahub.config.cell import compose_cell
from sahub.config.compose import composed
from sahub.errors import ConfigError
from sahub.results.reproduce import merged, reproducing
from sahub.run.check import check_cell
from sahub.search.trial import attention_of, space_of_cell


def cell_of(names, *overrides):
    return compose_cell(["builder=compose", f"compose=[{names}]", *overrides])


SIZES = ["sink.sink_size.of_budget", "local.window_size.of_budget"]


@pytest.mark.parametrize(
    ("names", "free"),
    [
        ("sink,local,magic_pig", [*SIZES, "magic_pig.lsh_l", "magic_pig.lsh_k", "magic_pig.min_hits"]),
        ("sink,local,quest", [*SIZES, "quest.density", "quest.page_size", "quest.label_bits"]),
        ("sink,local", [SIZES[0], "local.density"]),
        ("oracle_top_k,local", ["oracle_top_k.heavy_size.of_budget", "oracle_top_k.rank", "local.density"]),
        ("dense", []),
    ],
)
def test_spaces_are_what_the_methods_declare(names, free):
    cell = cell_of(names, "objective=default")  # which searches the budget too
    check_cell(cell)
    assert list(cell.builder["stages"]) == names.split(",")
    assert list(space_of_cell(cell).free) == free
    assert "compose_" + names.replace(",", "_") in cell.name


def test_under_a_target_the_last_stage_fills_up_to_it():
    stages, _ = composed(["sink", "quest", "local"])
    assert stages["local"] == {"density": "${objective.budget}"}
    assert stages["quest"]["heavy_size"] == {"of_budget": 0.4}
    stack = attention_of(cell_of("sink,quest,local", "objective=sparsity_5"), ()).stack
    assert stack.density == 0.05


@pytest.mark.parametrize(
    "typed",
    [
        [],
        ["builder.stages.magic_pig.lsh_l=50", "builder.stages.sink.sink_size=16"],
        ["builder.stages.sink.sink_size=[4,4,8,8]", "builder.search.magic_pig.lsh_k=null"],
        ["builder.search.magic_pig.center={choices:[keys,none]}", "builder.stages.magic_pig.center=none"],
    ],
)
def test_pasted_lines_give_the_same_stack(typed):
    cell = cell_of("sink,local,magic_pig", *typed)
    check_cell(cell)
    point = overrides_of(space_of_cell(cell).default)
    again = compose_cell(merged(reproducing(cell), point))
    assert again.name == cell.name
    assert attention_of(again, ()) == attention_of(cell, point)
    assert not space_of_cell(again).free
    for item in typed:
        if ".stages." in item:
            assert cell.is_pinned(item.partition("=")[0].removeprefix("builder.stages."))


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["compose=[sinkk]"], "compose=[sinkk]: sinkk: unknown method; did you mean sink? methods: adaptive_sampling"),
        (["compose=[os]"], "compose=[os]: os: unknown method"),
        (["compose=[]"], "compose=[]: builder=compose needs the methods of the stack, such as [sink,local,magic_pig]"),
        (["compose=[sink,sink]"], "compose=[sink,sink]: sink: stands there twice"),
        (["compose=[sink,dense]"], "compose=[sink,dense]: dense: keeps every key"),
        (["compose=[magic_pig,sink]"], "compose=[magic_pig,sink]: magic_pig: must be last: it draws from the keys"),
        (["compose=[random_sampling,magic_pig]"], "random_sampling: must be last"),
        (["compose=[sink]", "builder=quest"], "compose=[sink]: only builder=compose reads it, not builder=quest"),
        (["compose=[sink]", "builder.stages.quest.page_size=8"], "builder.stages.quest: is not composed; stages: sink"),
        (["compose=[sink]", "builder.search.quest.page_size={choices:[8]}"], "builder.search.quest: is not composed"),
    ],
)
def test_what_cannot_be_composed_is_named(overrides, message):
    with pytest.raises(ConfigError) as caught:
        compose_cell(["builder=compose", *overrides])
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_registered_methods_compose(monkeypatch):
    monkeypatch.setattr(extensions, "_registered", {})

    @register_method
    @dataclass(frozen=True, kw_only=True)
    class EveryNth(Stage):
        nth: int = field(metadata={"unit": "keys", "search": {"low": 2, "high": 32, "log": True}})
        offset: int = 0

    stages, search = composed(["sink", "every_nth"])
    assert stages["every_nth"] == {"nth": 8}  # the middle of its range
    assert search["every_nth"] == {"nth": {"low": 2, "high": 32, "log": True}}
    assert attention_of(cell_of("sink,every_nth", "builder.stages.every_nth.offset=3"), ()).stack.stages[1] == EveryNth(
        nth=8, offset=3
    )
