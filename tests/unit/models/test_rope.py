"""Rotary frequencies that follow the length: those of context and question, whatever was read before."""

from functools import partial

import pytest
import torch
from conftest import tiny_config
from families import session_of, tiny
from torch import Tensor
from transformers import PreTrainedModel

import sahub
from sahub.engine import session as sessions
from sahub.engine.contexts.prefill import prefill
from sahub.engine.session import Attention, Session
from sahub.errors import UnsupportedModel
from sahub.models.rope import check_fixable, fixed_frequencies, frequencies

DENSE = Attention(stack=sahub.build_stack([{"name": "dense"}]), measure=0)
SWITCH = 64
LONGROPE = {
    "rope_type": "longrope",
    "rope_theta": 10000.0,
    "original_max_position_embeddings": SWITCH,
    "factor": 8.0,
    "short_factor": [1.0] * 8,
    "long_factor": [1.0 + i for i in range(8)],
}
DYNAMIC = {"rope_type": "dynamic", "factor": 4.0, "rope_theta": 10000.0}
BY_LAYER = {"full_attention": DYNAMIC, "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0}}
MODELS = {
    "longrope": ("phi3", {"rope_parameters": LONGROPE, "original_max_position_embeddings": SWITCH}),
    "dynamic": ("llama", {"rope_parameters": DYNAMIC, "max_position_embeddings": SWITCH}),
    "dynamic-by-layer": ("gemma3", {"rope_parameters": BY_LAYER, "max_position_embeddings": SWITCH}),
}
IDS = torch.randint(3, 500, (1, 200), generator=torch.Generator().manual_seed(2))
LENGTHS = {"below": (30, 20), "across": (60, 20), "at": (44, 20), "above": (90, 20), "chunks": (150, 30)}


@pytest.fixture(params=MODELS)
def hf(request: pytest.FixtureRequest, make_model) -> PreTrainedModel:
    family, changes = MODELS[request.param]
    return tiny(family, **changes) if family == "gemma3" else make_model(family, **changes)


@pytest.fixture
def session(hf: PreTrainedModel, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A session that prefills 40 tokens at a time."""
    monkeypatch.setattr(sessions, "prefill", partial(prefill, chunk=40))
    return session_of(hf)


@torch.inference_mode()
def one_pass(hf: PreTrainedModel, length: int) -> Tensor:
    """Logits of a text in one forward pass of a model that has read nothing before."""
    with fixed_frequencies(hf, 1):
        pass
    return hf(input_ids=IDS[:, :length]).logits[0].float()


def asked(session: Session, context: int, question: int, attention: Attention) -> Tensor:
    """Logits at the end of context and question."""
    ids = IDS[0, : context + question].tolist()
    prefix = session.prefix(tuple(ids[:context]), 64, asked=1)
    return session.generate(prefix, ids[context:], attention, max_new_tokens=3).logits[0]


@pytest.mark.parametrize("attention", [Attention(), DENSE], ids=["own", "dense"])
def test_context_and_question_are_one_pass_whatever_was_read_before(
    hf: PreTrainedModel, session: Session, attention: Attention
) -> None:
    expected = {name: one_pass(hf, sum(lengths))[-1] for name, lengths in LENGTHS.items()}
    for name in ("across", "chunks", "below", "above", "at", "across"):
        found = asked(session, *LENGTHS[name], attention)
        torch.testing.assert_close(found, expected[name], atol=1e-4, rtol=1e-4)


def test_a_context_is_prefilled_anew_only_for_other_frequencies(hf: PreTrainedModel, session: Session) -> None:
    ids = IDS[0].tolist()
    prefix, counters = session.prefix(tuple(ids[:50]), 64, asked=8), session.model.counters
    session.generate(prefix, ids[50:58], Attention(), max_new_tokens=2)
    session.generate(prefix, ids[50:60], DENSE, max_new_tokens=12)  # decodes beyond the switch
    assert counters.prefills == 1
    session.generate(prefix, ids[50:70], DENSE, max_new_tokens=2)
    session.generate(prefix, ids[50:70], Attention(), max_new_tokens=2)
    assert counters.prefills == 2
    session.generate(prefix, ids[50:58], Attention(), max_new_tokens=2)
    assert counters.prefills == 2


def test_the_model_is_left_as_it_came(hf: PreTrainedModel) -> None:
    before = one_pass(hf, 50)
    kinds = [module.rope_type for module in hf.modules() if hasattr(module, "rope_type")]
    with pytest.raises(RuntimeError, match="boom"), fixed_frequencies(hf, 500):
        raise RuntimeError("boom")
    assert [module.rope_type for module in hf.modules() if hasattr(module, "rope_type")] == kinds
    assert torch.equal(hf(input_ids=IDS[:, :50]).logits[0], before)


def test_frequencies_are_told_apart_where_they_differ() -> None:
    plain = tiny_config("llama")
    assert frequencies(plain, 10) is frequencies(plain, 10_000) is None
    dynamic = tiny_config("llama", rope_parameters=DYNAMIC, max_position_embeddings=SWITCH)
    assert frequencies(dynamic, 10) == frequencies(dynamic, SWITCH) != frequencies(dynamic, SWITCH + 1)
    longrope = tiny_config("phi3", rope_parameters=LONGROPE, original_max_position_embeddings=SWITCH)
    assert frequencies(longrope, SWITCH) != frequencies(longrope, SWITCH + 1) == frequencies(longrope, 900)


def test_rotary_embeddings_of_others_are_refused_by_name() -> None:
    model = tiny("mistral", rope_parameters=DYNAMIC)
    model.model.rotary_emb.rope_type = "its own"
    with pytest.raises(UnsupportedModel, match="model=mistral: rope_type=dynamic: its rotary embedding is not"):
        check_fixable(model)
    check_fixable(tiny("mistral", rope_parameters=DYNAMIC))
