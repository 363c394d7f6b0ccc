"""Prefill once, rewind for every question and stack; the hook leaves receipts and no traces."""

import pytest
import torch
from conftest import FAMILIES

import sahub
from sahub.engine.hook import Hook
from sahub.engine.model import wrap_model
from sahub.engine.routing import attached
from sahub.engine.session import Attention, Session
from sahub.errors import ConfigError, SahubError, SparseNeverRan

DENSE = sahub.build_stack([{"name": "dense"}])
QUEST = sahub.build_stack(
    [
        {"name": "sink", "sink_size": 4},
        {"name": "local", "window_size": 8},
        {"name": "quest", "density": 0.3, "page_size": 8},
    ],
    density=0.3,
)
CONTEXT = "The quick brown fox jumps over the lazy dog. " * 6
QUESTION = "\nWho jumps over the dog?"


@pytest.fixture(scope="module")
def session(make_model, tokenizer) -> Session:
    return Session(wrap_model(make_model(), tokenizer, name="tiny"))


def prefix_of(session: Session, context: str = CONTEXT):
    return session.prefix(tuple(session.model.context_ids(context)), 64)


@pytest.mark.parametrize("family", FAMILIES)
def test_dense_stack_equals_the_model(family, make_model, tokenizer):
    model = make_model(family)
    session = Session(wrap_model(model, tokenizer, name=family))
    context, question = session.model.context_ids(CONTEXT), session.model.question_ids(QUESTION, "")
    prefix = session.prefix(tuple(context), 64)
    with torch.inference_mode():
        own = model(torch.tensor([context + question])).logits[0, -1]
    attention = Attention(stack=DENSE)
    hooked = session.generate(prefix, question, attention, max_new_tokens=12)
    assert torch.allclose(hooked.logits[0], own, atol=1e-5, rtol=1e-5)
    plain = model.generate(torch.tensor([context + question]), max_new_tokens=12, do_sample=False)
    for token, logits, expected in zip(
        hooked.ids, hooked.logits, plain[0, len(context + question) :].tolist(), strict=False
    ):
        best = logits.topk(2).values
        if float(best[0] - best[1]) <= 1e-3:
            break
        assert token == expected
    assert all(float(tally.density) == tally.rows for tally in hooked.hook.tallies.values())


@pytest.mark.parametrize("family", FAMILIES)
def test_sparse_inside_plain_transformers(family, make_model, tokenizer):
    model = make_model(family)
    ids = torch.tensor([tokenizer.encode(CONTEXT)])
    before = model(ids).logits
    dense = model.generate(ids, max_new_tokens=6, do_sample=False)
    with sahub.sparse(model, DENSE) as hook:
        again = model.generate(ids, max_new_tokens=6, do_sample=False)
    assert torch.equal(dense, again)
    assert {layer for layer, _ in hook.tallies} == {0, 1}
    with sahub.sparse(model, QUEST) as hook:
        model.generate(ids, max_new_tokens=6, do_sample=False)
    assert 0 < float(hook.tallies[0, "question"].density) / hook.tallies[0, "question"].rows < 0.6
    assert torch.equal(model(ids).logits, before)  # nothing of the hook stays behind


def test_left_padding_moves_nothing(make_model, tokenizer):
    model = make_model()
    texts = [CONTEXT, CONTEXT[45:]]
    padded = tokenizer(texts, return_tensors="pt", padding=True, padding_side="left")
    with sahub.sparse(model, QUEST):
        together = model.generate(**padded, max_new_tokens=5, do_sample=False)[:, padded["input_ids"].shape[1] :]
        for row, text in zip(together, texts, strict=True):
            alone = model.generate(**tokenizer(text, return_tensors="pt"), max_new_tokens=5, do_sample=False)
            assert row.tolist() == alone[0, -5:].tolist()


def test_one_prefill_for_all_questions_and_stacks(session):
    counters = session.model.counters
    before = counters.prefills
    prefix = prefix_of(session, CONTEXT + "once")
    answers = []
    for _ in range(2):
        for stack in (None, DENSE, QUEST):
            for question in (QUESTION, "\nWhat is lazy?"):
                ids = session.model.question_ids(question, "")
                prefix = prefix_of(session, CONTEXT + "once")
                answers.append(session.generate(prefix, ids, Attention(stack=stack), max_new_tokens=5).ids)
    assert counters.prefills == before + 1
    assert answers[:6] == answers[6:]  # a rewound prefix is as good as a fresh one
    assert answers[0] == answers[2]


def test_forced_answer_has_the_logits_of_generation(session):
    ids = session.model.question_ids(QUESTION, "")
    for stack in (None, DENSE, QUEST):
        generated = session.generate(prefix_of(session), ids, Attention(stack=stack), max_new_tokens=8)
        forced = session.force(prefix_of(session), ids, generated.ids, Attention(stack=stack))
        assert torch.allclose(generated.logits, forced.logits, atol=1e-4)


SAMPLERS = [
    {"name": "random_sampling", "density": 0.3},
    {"name": "adaptive_sampling", "epsilon": 0.2},
    {"name": "magic_pig", "lsh_l": 10, "lsh_k": 3},
]


@pytest.mark.parametrize("sampler", SAMPLERS, ids=lambda stage: stage["name"])
def test_samples_do_not_depend_on_chunks_and_differ_between_contexts_and_seeds(session, sampler):
    stack = sahub.build_stack([{"name": "sink", "sink_size": 4}, {"name": "local", "window_size": 8}, sampler])
    ids = session.model.question_ids(QUESTION, "")
    run = session.generate(prefix_of(session), ids, Attention(stack=stack), max_new_tokens=8)
    forced = session.force(prefix_of(session), ids, run.ids, Attention(stack=stack))
    assert torch.allclose(run.logits, forced.logits, atol=1e-4)
    again = session.generate(prefix_of(session), ids, Attention(stack=stack), max_new_tokens=8)
    assert torch.equal(run.logits, again.logits)
    other = session.force(prefix_of(session), ids, run.ids, Attention(stack=stack, seed=1))
    assert not torch.allclose(forced.logits, other.logits, atol=1e-4)
    first, second = prefix_of(session).example, prefix_of(session, "Another " + CONTEXT).example
    assert first != second
    assert first == prefix_of(session).example


def test_setup_a_keeps_the_question_dense(session):
    ids = session.model.question_ids(QUESTION, "")
    run = session.generate(prefix_of(session), ids, Attention(stack=QUEST, dense_question=True), max_new_tokens=4)
    dense = session.generate(prefix_of(session), ids, Attention(), max_new_tokens=1)
    assert run.ids[0] == dense.ids[0]
    assert {phase for _, phase in run.hook.tallies} == {"decode"}


def test_dense_layers_are_not_counted(session):
    ids = session.model.question_ids(QUESTION, "")
    run = session.generate(prefix_of(session), ids, Attention(stack=QUEST, dense_layers=(0,)), max_new_tokens=4)
    assert {layer for layer, _ in run.hook.tallies} == {1}
    with pytest.raises(SahubError, match=r"protocol.dense_layers=\[0, 1\]"):
        session.generate(prefix_of(session), ids, Attention(stack=QUEST, dense_layers=(0, 1)), max_new_tokens=4)


def test_the_first_token_can_stop_the_answer(make_model, tokenizer):
    model = make_model()
    loaded = wrap_model(model, tokenizer, name="tiny")
    session = Session(loaded)
    ids = loaded.question_ids(QUESTION, "")
    for stack in (None, QUEST):
        free = session.generate(prefix_of(session), ids, Attention(stack=stack), max_new_tokens=3).ids
        loaded.stop_ids = frozenset({free[0], 500})
        stopped = session.generate(prefix_of(session), ids, Attention(stack=stack), max_new_tokens=3).ids
        assert stopped == free[:1]


def test_a_hook_that_is_not_asked_is_noticed(session, monkeypatch):
    monkeypatch.setattr("sahub.engine.routing.NAME", "sdpa")
    with pytest.raises(SparseNeverRan, match="sparse attention never ran"):
        session.generate(
            prefix_of(session), session.model.question_ids(QUESTION, ""), Attention(stack=QUEST), max_new_tokens=2
        )


def test_density_one_under_a_target_is_noticed(session):
    wide = sahub.build_stack([{"name": "local", "window_size": 100_000}], density=0.1)
    with pytest.raises(SparseNeverRan, match=r"every key was kept where the stack asks for 0\.1"):
        session.generate(
            prefix_of(session), session.model.question_ids(QUESTION, ""), Attention(stack=wide), max_new_tokens=2
        )


def test_the_model_is_left_as_it_came_after_an_error(session):
    model = session.model.hf
    before = model.config._attn_implementation

    def explode() -> None:
        with attached(model, Hook(stack=DENSE, geometry=session.model.geometry)):
            raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        explode()
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("family", ["mistral", "qwen3", "phi3"])
def test_where_every_layer_has_a_window_the_model_reads_no_further(family, make_model, tokenizer):
    changes = {"sliding_window": 128}
    if family == "qwen3":
        changes |= {"use_sliding_window": True, "max_window_layers": 0}
    hf = make_model(family, **changes)
    assert wrap_model(hf, tokenizer).max_context_length == 128
    assert wrap_model(hf, tokenizer, max_context_length=100).max_context_length == 100
    with pytest.raises(ConfigError, match=r"model.max_context_length=129: must be at most 128, the model's sliding"):
        wrap_model(hf, tokenizer, max_context_length=129)


def test_public_answer(make_model, tokenizer):
    from sahub.api import Model

    model = Model(wrap_model(make_model(), tokenizer, name="tiny"))
    dense = model.answer(CONTEXT, [QUESTION, "\nWhat?"], max_new_tokens=4)
    assert dense == model.answer(CONTEXT, [QUESTION, "\nWhat?"], DENSE, max_new_tokens=4)
    assert len(model.answer(CONTEXT, QUESTION, QUEST, max_new_tokens=4)) == 1
    assert model.model.counters.prefills == 1


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name_or_path": "/nonexistent"}, "no such folder"),
        ({"dtype": "int8"}, "model.dtype=int8: must be auto, float32, bfloat16 or float16"),
        ({"device": "mps"}, "model.device=mps: torch"),
    ],
)
def test_wrong_ways_to_load_are_named(settings, message):
    from sahub.errors import ConfigError

    with pytest.raises(ConfigError) as caught:
        sahub.load_model(**settings)
    assert message in str(caught.value)


def test_a_folder_that_is_no_model_is_named(tmp_path):
    from sahub.errors import ConfigError

    with pytest.raises(ConfigError, match=r"no config\.json"):
        sahub.load_model(str(tmp_path))
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    with pytest.raises(ConfigError, match="cannot be read as a transformers model"):
        sahub.load_model(str(tmp_path))


def test_caches_that_do_not_simply_grow_are_refused(make_model, tokenizer):
    model = make_model()
    ids = torch.tensor([tokenizer.encode(CONTEXT)])
    for settings, message in (
        ({"cache_implementation": "static"}, "static caches are not supported"),
        ({"num_beams": 4}, "beam search is not supported"),
    ):
        with pytest.raises(SahubError, match=message), sahub.sparse(model, QUEST):
            model.generate(ids, max_new_tokens=12, do_sample=False, **settings)
    with pytest.raises(SparseNeverRan, match="use_cache=True"), sahub.sparse(model, QUEST):
        model.generate(ids, max_new_tokens=3, do_sample=False, use_cache=False)
