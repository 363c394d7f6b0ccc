"""Replay gives what the model gives when one layer alone is sparse, for every builder."""

from collections import OrderedDict
from dataclasses import replace
from functools import cache

import pytest
import torch
from families import session_of, tiny

from sahub import build_stack, load_model
from sahub.config.cell import compose_cell
from sahub.config.choices import conf_dir, group_choices
from sahub.engine import record as recording
from sahub.engine.model import wrap_model
from sahub.engine.record import record
from sahub.engine.replay import replay
from sahub.engine.session import Attention, Session
from sahub.search.trial import attention_of

BUILDERS = [name for name in group_choices("builder", [conf_dir()]) if name != "compose"]
CONTEXT = tuple(int(x) for x in torch.randint(3, 259, (300,), generator=torch.Generator().manual_seed(1)))
QUESTION = [7, 9, 30, 41, 5, 66, 80]


@pytest.fixture(scope="module")
def traced(make_model, tokenizer):
    """By what a method needs: a session, the prefix, its dense answer and the trace."""
    found = {}
    for name in ("tiny", "embedded"):  # heads that share KV heads; the model that there are hash weights for
        torch.set_num_threads(1)
        tiny = name == "tiny"
        session = Session(wrap_model(make_model(num_hidden_layers=3), tokenizer, name=name)) if tiny else load_model()
        prefix = session.prefix(CONTEXT, 64)
        answer = session.dense_answer(prefix, CONTEXT, tuple(QUESTION), max_new_tokens=12).ids
        found[name] = session, prefix, answer, record(session.model, prefix, QUESTION, answer)
    return found


@cache
def stack_of(builder, objective="sparsity_20"):
    return attention_of(compose_cell([f"builder={builder}", f"objective={objective}"]), ()).stack


def total(tallies, name):
    return float(sum(getattr(tally, name) for tally in tallies.values()))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_layer_alone_has_the_error_that_replay_has(builder, traced):
    session, prefix, answer, trace = traced["embedded" if "hash" in builder else "tiny"]
    others = tuple(layer for layer in range(session.model.geometry.num_layers) if layer != 1)
    stack = stack_of(builder)
    forced = session.force(prefix, QUESTION, answer, Attention(stack=stack, dense_layers=others)).hook.tallies
    rows = replay(trace, stack, dense_layers=others, rows="all")
    assert {*rows} == {(1, "question"), (1, "first_token"), (1, "decode")}
    for name in ("error", "norm", "density", "kv_density", "selected", "rows"):
        assert total(rows, name) == pytest.approx(total(forced, name), rel=1e-4, abs=1e-6), name


@pytest.mark.parametrize("builder", BUILDERS)
def test_layers_as_a_batch_have_what_each_has_alone(builder, traced):
    *_, trace = traced["embedded" if "hash" in builder else "tiny"]
    numbers = [number for group in trace.groups for number in group.numbers]
    every = replay(trace, stack_of(builder), rows="all")
    for number in numbers:
        alone = replay(trace, stack_of(builder), rows="all", dense_layers=[one for one in numbers if one != number])
        for (layer, phase), tally in alone.items():
            for name in ("error", "norm", "density", "kv_density", "mass_lost", "top1_missed", "rows", "elements"):
                assert getattr(every[layer, phase], name) == pytest.approx(getattr(tally, name), rel=1e-6), name


@pytest.mark.parametrize("builder", BUILDERS)
def test_what_stacks_share_changes_none(builder, traced):
    *_, trace = traced["embedded" if "hash" in builder else "tiny"]
    shared = replace(trace, indexes=OrderedDict(), seen={})
    for objective in ("sparsity_20", "sparsity_10", "sparsity_20"):
        alone = replace(trace, indexes=OrderedDict(), seen={})
        stack = stack_of(builder, objective)
        assert replay(shared, stack) == replay(alone, stack)


@pytest.mark.parametrize("name", ["snapkv", "tova", "expected_attention"])
def test_what_observers_say_to_one_stack_is_no_other_stacks(name, traced):
    *_, trace = traced["tiny"]
    groups = [{}] if name == "tova" else [{"group": group} for group in ("none", "sum", "max", "union")]
    own = [{"kernel_size": size} for size in (1, 5)] if name == "snapkv" else [{}]
    stages = [
        {"name": name, "window_size": 4, "density": density, **group, **one}
        for density in (0.1, 0.2) for group in groups for one in own
    ]  # fmt: skip
    stacks = [build_stack([{"name": "sink", "sink_size": 2}, stage]) for stage in stages]
    shared = replace(trace, indexes=OrderedDict(), seen={})
    for stack in [*stacks, *stacks]:
        assert replay(shared, stack) == replay(replace(trace, indexes=OrderedDict(), seen={}), stack)


def test_layers_with_budgets_of_their_own_are_no_batch(traced):
    *_, trace = traced["tiny"]
    budgets = [0.1, 0.1, 0.3]
    found = replay(trace, build_stack([{"name": "sink", "sink_size": 4}, {"name": "quest", "density": budgets}]))
    for (layer, _), tally in found.items():
        assert float(tally.density) / tally.rows == pytest.approx(budgets[layer], abs=0.004)


def test_rows_of_the_answer_alone_are_asked_unless_told_otherwise(traced):
    *_, trace = traced["tiny"]
    for builder in ("quest", "snapkv"):
        few, every = replay(trace, stack_of(builder)), replay(trace, stack_of(builder), rows="all")
        assert {phase for _, phase in few} == {"first_token", "decode"}
        assert {key: tally for key, tally in every.items() if key in few}.keys() == few.keys()
        for key, tally in few.items():
            assert tally.mass_lost == pytest.approx(every[key].mass_lost, rel=1e-5)


@torch.inference_mode()
def test_what_is_missed_is_what_a_mask_of_the_dense_softmax_says(traced):
    _, _, _, trace = traced["tiny"]
    tally = replay(trace, stack_of("streaming_llm"))[2, "decode"]
    [group], run = trace.groups, trace.runs(["decode"])[-1]
    keys, queries = group.keys[2], group.queries[2, :, run.part]
    lost = top = worst = 0.0
    for head in range(4):
        for row in range(queries.shape[1]):
            seen = run.end - queries.shape[1] + row + 1
            shares = (keys[head // 2, :seen] @ queries[head, row] / 4).softmax(-1)
            sink = min(128, int(0.2 * 0.125 * seen + 1e-6))
            kept = torch.zeros(seen, dtype=torch.bool)
            kept[: max(4, sink)] = True
            kept[seen - (int(0.2 * seen + 1e-6) - int(kept.sum())) :] = True
            lost += float(shares[~kept].sum()) / 4
            miss = 0.0 if kept[shares.argmax()] else float(shares.max())
            top, worst = top + miss / 4, max(worst, miss)
    assert tally.rows == queries.shape[1]
    assert tally.mass_lost == pytest.approx(lost, rel=1e-4)
    assert tally.top1_missed == pytest.approx(top, rel=1e-4)
    assert tally.worst_top1_missed == pytest.approx(worst, rel=1e-4)


def test_of_a_long_question_both_ends_are_replayed(monkeypatch, traced):
    session, prefix, _, _ = traced["tiny"]
    monkeypatch.setattr(recording, "FIRST", 2)
    monkeypatch.setattr(recording, "LAST", 3)
    trace = record(session.model, prefix, [*range(10, 30)], [5, 6, 7])
    runs = trace.runs(["decode"])
    assert [(sorted({*run.phases}), run.part.stop - run.part.start, run.end - 300, run.counted) for run in runs] == [
        (["question"], 2, 2, False),
        (["first_token", "question"], 4, 20, False),
        (["decode"], 2, 22, True),
    ]
    whole = replay(trace, stack_of("quest"))
    monkeypatch.setattr(recording, "FIRST", 200)
    every = replay(record(session.model, prefix, [*range(10, 30)], [5, 6, 7]), stack_of("quest"))
    assert total({0: whole[0, "decode"]}, "error") == pytest.approx(total({0: every[0, "decode"]}, "error"), rel=1e-5)


@pytest.mark.parametrize("builder", ["quest", "snapkv"])
def test_a_dense_question_is_seen_and_not_counted(builder, traced):
    session, prefix, answer, trace = traced["tiny"]
    others, stack = (0, 2), stack_of(builder)
    how = Attention(stack=stack, dense_layers=others, dense_question=True)
    forced = session.force(prefix, QUESTION, answer, how).hook.tallies
    rows = replay(trace, stack, dense_layers=others, dense_question=True)
    assert {*rows} == {*forced} == {(1, "decode")}
    assert total(rows, "error") == pytest.approx(total(forced, "error"), rel=1e-4)


@pytest.mark.parametrize("family", ["gemma2", "gemma3n", "gpt_oss", "falcon_h1"])
def test_bounded_logits_sinks_and_shared_keys_are_replayed(family):
    session = session_of(tiny(family))
    context = tuple(range(20, 100))
    prefix = session.prefix(context, 32)
    answer = session.dense_answer(prefix, context, tuple(QUESTION), max_new_tokens=6).ids
    trace = session.trace_of(prefix, QUESTION, answer)
    first, *_, last = session.model.geometry.layers
    for layer in {first, last}:
        others = tuple(one for one in session.model.geometry.layers if one != layer)
        stack = stack_of("oracle_topk")
        forced = session.force(prefix, QUESTION, answer, Attention(stack=stack, dense_layers=others)).hook.tallies
        rows = replay(trace, stack, dense_layers=others, rows="all")
        for name in ("error", "norm", "density"):
            assert total(rows, name) == pytest.approx(total(forced, name), rel=1e-4, abs=1e-7), (layer, name)


@pytest.mark.parametrize("family", ["gemma4", "gemma3n"])
def test_layers_that_read_the_keys_of_others_are_traced(family):
    session = session_of(tiny(family))
    prefix, answer, stack = session.prefix(CONTEXT[:80], 64), list(range(5, 12)), stack_of("quest")
    trace = session.record(prefix, QUESTION, answer)
    found = replay(trace, stack, rows="all")
    assert {layer for layer, _ in found} == {*session.model.geometry.layers}
