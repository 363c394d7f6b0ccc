"""Budgets that differ by layer: each layer does what a stack with its own values would do."""

import pytest
import torch

from sahub.attention.call import Geometry
from sahub.builders.build import build_stack, select
from sahub.config.cell import compose_cell
from sahub.errors import ConfigError
from sahub.results.reproduce import reproducing
from sahub.run.check import check_cell
from sahub.search.trial import attention_of, space_of_cell

GEOMETRY = Geometry(num_layers=2, num_heads=2, num_kv_heads=1, head_dim=8)
LISTS = [
    [{"name": "sink", "sink_size": [2, 0.5]}],
    [{"name": "sink", "sink_size": [2, {"of_budget": 0.5}]}, {"name": "local", "density": [0.2, 0.6]}],
    [{"name": "local", "window_size": [3, 11]}, {"name": "oracle_top_k", "heavy_size": [0.1, 4]}],
    [{"name": "sink", "sink_size": 2}, {"name": "quest", "select": {"heavy_size": [4, 9]}, "page_size": 2}],
    [{"name": "random_sampling", "density": [0.2, 0.7]}],
    [{"name": "adaptive_sampling", "base_rate_sampling": [2, 0.4], "max_density": [0.3, 0.9]}],
]


def of_layer(value, layer):
    if isinstance(value, dict):
        return {key: of_layer(one, layer) for key, one in value.items()}
    return value[layer] if isinstance(value, list) else value


@pytest.mark.parametrize("stages", LISTS)
@pytest.mark.parametrize("layer", [0, 1])
def test_a_layer_does_what_its_own_values_say(stages, layer):
    chance = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, heads, n, 8, generator=chance) for heads, n in ((2, 3), (1, 40), (1, 40)))
    stack = build_stack(stages)
    stack.check(GEOMETRY)
    alone = build_stack([of_layer(stage, layer) for stage in stages])
    ours, theirs = (select(one, q, k, v, layer=layer).probabilities() for one in (stack, alone))
    assert torch.equal(ours, theirs)
    other = build_stack([of_layer(stage, 1 - layer) for stage in stages])
    assert not torch.equal(ours, select(other, q, k, v, layer=layer).probabilities())


@pytest.mark.parametrize(
    ("stage", "message"),
    [
        ({"name": "sink", "sink_size": []}, "sink.sink_size=[]: must be a size, or a list with one per layer"),
        ({"name": "sink", "sink_size": [4, -1]}, "sink.sink_size[1]=-1: must be at least 0 tokens"),
        ({"name": "sink", "sink_size": [4, [4]]}, "sink.sink_size[1]=[4]: must be a size; a list of a list"),
        ({"name": "sink", "sink_size": [4, {"of_budget": 0.5}]}, "of_budget needs a density"),
        ({"name": "quest", "density": [0.1, 0.2], "page_size": [4, 8]}, "quest.page_size=[4, 8]: must be at least 1"),
    ],
)
def test_wrong_lists_are_named(stage, message):
    with pytest.raises(ConfigError) as caught:
        build_stack([stage])
    assert message in str(caught.value)


def test_a_list_of_the_wrong_length_is_named_before_any_model_is_loaded():
    stack = build_stack([{"name": "sink", "sink_size": [1, 2, 3]}])
    with pytest.raises(
        ConfigError, match=r"Sink.sink_size=\[1, 2, 3\]: has 3 values; must be one value, or a list of 2"
    ):
        stack.check(GEOMETRY)
    cell = compose_cell(["builder.stages.quest.density=[0.1,0.2]"])
    with pytest.raises(ConfigError, match=r"Quest.density=\[0.1, 0.2\]: has 2 values"):
        check_cell(cell)
    with pytest.raises(ConfigError, match=r"sink_size=\[1, 2, 3\]: has no value for layer 3"):
        stack.new_state(layer=3)


def test_a_typed_list_is_pinned_and_stays_in_the_lines_to_paste():
    cell = compose_cell(["builder.stages.quest.density=[0.1,0.2,0.1,0.1]", "builder.stages.sink.sink_size=[4,4,8,8]"])
    check_cell(cell)
    assert {"quest.density", "sink.sink_size.of_budget"}.isdisjoint(space_of_cell(cell).free)
    assert attention_of(cell, ()).stack.density == [0.1, 0.2, 0.1, 0.1]
    again = compose_cell(reproducing(cell))
    assert again.builder == cell.builder
    assert {"builder.stages.quest.density=[0.1,0.2,0.1,0.1]", "builder.stages.sink.sink_size=[4,4,8,8]"} <= {
        item.lstrip("+") for item in reproducing(cell)
    }
