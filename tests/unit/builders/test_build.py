"""From configuration to stacks: both forms, and errors that name the address, the value and the choices."""

from dataclasses import dataclass

import pytest
import torch

from sahub import extensions
from sahub.attention.stage import Stage
from sahub.builders.build import build_stack, method, register_method, select
from sahub.errors import ConfigError
from sahub.methods.quest import Quest
from sahub.methods.sink import Sink


def test_a_list_and_a_mapping_say_the_same():
    listed = build_stack([{"name": "sink", "sink_size": 4}, {"name": "quest", "density": 0.1, "page_size": 8}])
    mapped = build_stack({"sink": {"sink_size": 4}, "quest": {"density": 0.1, "page_size": 8}})
    assert listed == mapped
    assert listed.stages == (Sink(sink_size=4), Quest(density=0.1, page_size=8))
    assert build_stack({"first": {"method": "sink", "sink_size": 4}}).stages == (Sink(sink_size=4),)
    assert build_stack([{"name": "first", "method": "sink", "sink_size": 4}]).stages == (Sink(sink_size=4),)
    assert build_stack({"dense": None}).is_dense


@pytest.mark.parametrize(
    ("stages", "message"),
    [
        ([], "b.stages: must name at least one stage; methods: adaptive_sampling, dense, "),
        ({}, "b.stages: must name at least one stage"),
        ("quest", "b.stages=quest: must be a list of stages or a mapping"),
        ([{"sink_size": 4}], "b.stages[0]={'sink_size': 4}: needs a name; methods: adaptive_sampling, dense"),
        ([4], "b.stages[0]=4: must be a mapping"),
        ({"sink": 4}, "b.stages.sink=4: must be a mapping from field to value"),
        ({"questt": {}}, "b.stages.questt: unknown method; did you mean quest? methods: adaptive_sampling, dense"),
        ({"q": {"method": "questt"}}, "b.stages.q.method=questt: unknown method; did you mean quest?"),
        ({"os": {}}, "b.stages.os: unknown method;"),
        (
            {"quest": {"density": 0.1, "pagesize": 8}},
            "b.stages.quest.pagesize: unknown field; did you mean page_size? fields: density, heavy_size, select, "
            "page_size, label_bits, group, min_pages",
        ),
        ({"quest": {"density": 0.1, "page_size": 0}}, "b.stages.quest.page_size=0: must be at least 1 token"),
        ({"quest": {"density": 0.1, "page_size": 8.0}}, "b.stages.quest.page_size=8.0: must be at least 1 token"),
        ({"quest": {"density": 0.1, "label_bits": 17}}, "b.stages.quest.label_bits=17: must be 1 to 16 bits"),
        ({"quest": {}}, "b.stages.quest.density=None, heavy_size=None: exactly one of density, heavy_size and select"),
        ({"quest": {"density": 0.1, "heavy_size": 4}}, "b.stages.quest.density=0.1, heavy_size=4: exactly one of"),
        ({"quest": {"density": 0.1, "select": {"top_p": 0.5}}}, "b.stages.quest.select={'top_p': 0.5}, density=0.1: "),
        ({"quest": {"select": {"top_q": 0.5}}}, "b.stages.quest.select={'top_q': 0.5}: must be a mapping such as"),
        ({"quest": {"select": 0.5}}, "b.stages.quest.select=0.5: must be a mapping such as"),
        ({"quest": {"density": 0}}, "b.stages.quest.density=0: must be a share of the valid keys in (0, 1]"),
        ({"quest": {"density": [0.1, 2]}}, "b.stages.quest.density[1]=2: must be a share"),
        ({"oracle_top_k": {"heavy_size": True}}, "b.stages.oracle_top_k.heavy_size=True: must be tokens"),
        ({"oracle_top_k": {"density": 0.1, "rank": "best"}}, "b.stages.oracle_top_k.rank=best: must be score or value"),
        ({"oracle_top_p": {}}, "b.stages.oracle_top_p.top_p: must be set (share of the softmax mass)"),
        ({"oracle_top_p": {"top_p": 1.5}}, "b.stages.oracle_top_p.top_p=1.5: must be a share of the softmax mass"),
        ({"oracle_top_p": {"top_p": 0.5, "mass": "all"}}, "b.stages.oracle_top_p.mass=all: must be residual or total"),
        ({"sink": {}}, "b.stages.sink.sink_size: must be set (tokens)"),
        ({"sink": {"sink_size": -1}}, "b.stages.sink.sink_size=-1: must be at least 0 tokens"),
        ({"sink": {"sink_size": 1.5}}, "b.stages.sink.sink_size=1.5: must be tokens (an int >= 0), a share"),
        ({"sink": {"sink_size": "4"}}, "b.stages.sink.sink_size=4: must be tokens"),
        ({"sink": {"sink_size": {"of_budget": 2}}}, "b.stages.sink.sink_size={'of_budget': 2}: must be {of_budget:"),
        ({"sink": {"sink_size": {"of_budget": 0.5}}}, "b.stages.sink.sink_size={'of_budget': 0.5}: of_budget needs a"),
        (
            {"sink": {"sink_size": {"of_budget": 0.5, "at_least": 8, "at_most": 4}}},
            "at_least and at_most must be ints with 0 <= at_least <= at_most",
        ),
        ({"local": {}}, "b.stages.local.window_size=None, density=None: exactly one must be set"),
    ],
)
def test_errors_name_the_address_the_value_and_the_choices(stages, message):
    with pytest.raises(ConfigError) as caught:
        build_stack(stages, address="b.stages")
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_budget_must_be_a_share():
    with pytest.raises(ConfigError, match=r"^density=0: must be a share"):
        build_stack([{"name": "dense"}], density=0)


def test_shares_of_the_budget_refer_to_the_stack_or_to_its_last_density():
    sink = {"name": "sink", "sink_size": {"of_budget": 0.5}}
    k = torch.randn(1, 1, 100, 4)
    for stack, num in (
        (build_stack([sink], density=0.4), 20),
        (build_stack([sink, {"name": "local", "density": 0.2}]), 20),
        (build_stack([sink, {"name": "local", "density": 0.2}], density=0.4), 20),
    ):
        assert select(stack, k[:, :, -1:], k, k).counts().item() == num
    first = (select(build_stack([sink], density=[0.4, 0.1]), k[:, :, -1:], k, k, layer=i) for i in (0, 1))
    assert [x.counts().item() for x in first] == [20, 5]
    with pytest.raises(ConfigError, match="has no value for layer 2"):
        select(build_stack([sink], density=[0.4, 0.1]), k[:, :, -1:], k, k, layer=2)


def test_what_a_stack_says_about_itself():
    stack = build_stack([{"name": "sink", "sink_size": 4}, {"name": "quest", "density": 0.1, "page_size": 8}])
    assert stack.density == 0.1
    assert not stack.is_dense
    assert stack.index_keys() == (None, ("quest", 8, 16))
    other = build_stack([{"name": "sink", "sink_size": 9}, {"name": "quest", "heavy_size": 3, "page_size": 8}])
    assert other.index_keys() == stack.index_keys()
    for stages in ({"dense": {}}, {"sink": {"sink_size": 1.0}}, {"oracle_top_k": {"density": 1}}):
        assert build_stack(stages).is_dense
    assert not build_stack({"sink": {"sink_size": 1}}).is_dense


def test_states_share_indexes_built_before():
    k = torch.randn(1, 2, 50, 4, generator=torch.Generator().manual_seed(0))
    stages = [{"name": "sink", "sink_size": 4}, {"name": "quest", "density": 0.3, "page_size": 8}]
    built = build_stack(stages).new_state(layer=0)
    built.append(k[:, :, :40], k[:, :, :40])
    stack = build_stack([stages[0], stages[1] | {"density": 0.5}])
    state = stack.new_state(layer=0, indexes=built.indexes, length=40)
    state.append(k[:, :, 40:], k[:, :, 40:])
    again = select(stack, k[:, :, -3:], k, k).probabilities()
    assert torch.equal(state.select(k[:, :, -3:], k, k).probabilities(), again)
    assert built.length == built.indexes[1].length == 40
    with pytest.raises(ConfigError, match="an index of 40 keys"):
        stack.new_state(layer=0, indexes=built.indexes, length=39)


def test_selecting_before_appending_is_an_error():
    state = build_stack({"sink": {"sink_size": 1}}).new_state(layer=0)
    k = torch.zeros(1, 1, 3, 2)
    state.append(k[:, :, :2], k[:, :, :2])
    with pytest.raises(ConfigError, match="k has 3 keys, 2 were appended"):
        state.select(k, k, k)
    with pytest.raises(ConfigError, match="length=3: must be at most the 2 keys"):
        state.truncate(3, k, k)


def test_methods_of_other_packages_can_be_named(monkeypatch):
    monkeypatch.setattr(extensions, "_registered", {})

    @register_method
    @dataclass(frozen=True, kw_only=True)
    class KeepLast2(Stage):
        num: int = 2

        def add(self, call, taken, index):
            return taken.of(torch.tensor([[[[call.rows.num_keys - 1]]]]), torch.zeros(1, 1, 1, 1))

    assert method("keep_last2") is KeepLast2
    k = torch.zeros(1, 1, 5, 2)
    assert select(build_stack({"keep_last2": {}}), k[:, :, -1:], k, k).indices.item() == 4
    with pytest.raises(ConfigError, match=r"register_method\(name=sink\): the name is taken"):
        register_method(KeepLast2, "sink")
    with pytest.raises(ConfigError, match="must be a dataclass derived from"):
        register_method(int)  # type: ignore[arg-type]
    assert register_method(KeepLast2) is KeepLast2


def test_at_most_one_stage_may_sample(monkeypatch):
    monkeypatch.setattr(extensions, "_registered", {})

    @register_method
    @dataclass(frozen=True, kw_only=True)
    class Lottery(Stage):
        samples = True

    assert build_stack({"lottery": {}}).stages == (Lottery(),)
    with pytest.raises(ConfigError, match="a, b: at most one stage of a stack may sample"):
        build_stack({"a": {"method": "lottery"}, "b": {"method": "lottery"}})
