"""Replay gives what the model gives when one layer alone is sparse, for every builder."""

import pytest
import torch
from families import session_of, tiny

from sahub import load_model
from sahub.config.cell import compose_cell
from sahub.config.choices import conf_dir, group_choices
from sahub.engine import replay as replaying
from sahub.engine.model import wrap_model
from sahub.engine.replay import record, replay
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


def stack_of(builder):
    return attention_of(compose_cell([f"builder={builder}", "objective=sparsity_20"]), ()).stack


def total(tallies, name):
    return float(sum(getattr(tally, name) for tally in tallies.values()))


@pytest.mark.parametrize("builder", BUILDERS)
def test_a_layer_alone_has_the_error_that_replay_has(builder, traced):
    session, prefix, answer, trace = traced["embedded" if "hash" in builder else "tiny"]
    others = tuple(layer for layer in range(session.model.geometry.num_layers) if layer != 1)
    stack = stack_of(builder)
    forced = session.force(prefix, QUESTION, answer, Attention(stack=stack, dense_layers=others)).hook.tallies
    rows = replay(trace, stack, dense_layers=others)
    assert {*rows} == {(1, "question"), (1, "first_token"), (1, "decode")}
    for name in ("error", "norm", "density", "kv_density", "selected", "rows"):
        assert total(rows, name) == pytest.approx(total(forced, name), rel=1e-4, abs=1e-6), name


@torch.inference_mode()
def test_what_is_missed_is_what_a_mask_of_the_dense_softmax_says(traced):
    _, prefix, _, trace = traced["tiny"]
    tally = replay(trace, stack_of("streaming_llm"))[2, "decode"]
    block = trace.layers[2].blocks[-1]
    keys, _ = prefix.with_tail(2, trace.layers[2].keys, trace.layers[2].values)
    lost = top = worst = 0.0
    for head in range(4):
        for row in range(block.queries.shape[2]):
            seen = block.end - block.queries.shape[2] + row + 1
            shares = (keys[0, head // 2, :seen] @ block.queries[0, head, row] / 4).softmax(-1)
            sink = min(128, int(0.2 * 0.125 * seen + 1e-6))
            kept = torch.zeros(seen, dtype=torch.bool)
            kept[: max(4, sink)] = True
            kept[seen - (int(0.2 * seen + 1e-6) - int(kept.sum())) :] = True
            lost += float(shares[~kept].sum()) / 4
            miss = 0.0 if kept[shares.argmax()] else float(shares.max())
            top, worst = top + miss / 4, max(worst, miss)
    assert tally.rows == block.queries.shape[2]
    assert float(tally.mass_lost) == pytest.approx(lost, rel=1e-4)
    assert float(tally.top1_missed) == pytest.approx(top, rel=1e-4)
    assert tally.worst_top1_missed == pytest.approx(worst, rel=1e-4)


def test_of_a_long_question_both_ends_are_replayed(monkeypatch, traced):
    session, prefix, _, _ = traced["tiny"]
    monkeypatch.setattr(replaying, "FIRST", 2)
    monkeypatch.setattr(replaying, "LAST", 3)
    trace = record(session.model, prefix, [*range(10, 30)], [5, 6, 7])
    blocks = trace.layers[0].blocks
    assert [(block.phase, block.queries.shape[2], block.end - 300) for block in blocks] == [
        ("question", 2, 2),
        ("question", 3, 19),
        ("first_token", 1, 20),
        ("decode", 2, 22),
    ]
    whole = replay(trace, stack_of("quest"))
    monkeypatch.setattr(replaying, "FIRST", 200)
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
        rows = replay(trace, stack, dense_layers=others)
        for name in ("error", "norm", "density"):
            assert total(rows, name) == pytest.approx(total(forced, name), rel=1e-4, abs=1e-7), (layer, name)
