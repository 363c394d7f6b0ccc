"""A context that is read in pieces is what it is in one."""

from dataclasses import replace
from unittest.mock import patch

import pytest
import torch
from conftest import tiny_config
from families import seeded, tiny
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.engine.call_stats import Inputs
from sahub.engine.contexts import prefill as module
from sahub.engine.contexts.prefill import _Joined, prefill, tokens_at_once
from sahub.engine.routing import attached

IDS = torch.randint(5, 200, (1, 90), generator=torch.Generator().manual_seed(0))
NEAR = {torch.float32: 1e-5, torch.float64: 1e-5, torch.bfloat16: 3e-2, torch.float16: 3e-3}


def call(seed: int, kind: torch.dtype = torch.float32, *, heads=(4, 2), chunk=5, past=9, width=8, **formula) -> Inputs:
    noise = torch.Generator().manual_seed(seed)
    query, key, value = (
        torch.randn(2, num, length, width, generator=noise).to(kind)
        for num, length in ((heads[0], chunk), (heads[1], past + chunk), (heads[1], past + chunk))
    )
    return Inputs(query=query, key=key, value=value, scale=0.4, **{"mask": None, **formula})


@settings(max_examples=40, deadline=None)
@given(
    kind=st.sampled_from(list(NEAR)),
    heads=st.sampled_from([(4, 4), (4, 2), (9, 3), (2, 1)]),
    chunk=st.integers(1, 70),
    past=st.integers(0, 600),
    width=st.sampled_from([8, 10, 64]),
    seed=st.integers(0, 2**31),
)
def test_keys_before_a_chunk_and_its_own_together_are_all_keys(kind, heads, chunk, past, width, seed):
    given = call(seed, kind, heads=heads, chunk=chunk, past=past, width=width)
    found = _Joined().attend(0, given)
    assert found.dtype == kind
    torch.testing.assert_close(found, given.dense(), atol=NEAR[kind], rtol=NEAR[kind])


@pytest.mark.parametrize(
    "formula",
    [
        {"softcap": 2.0},
        {"sinks": torch.tensor([0.5, 1, 2, -1])},
        {"mask": torch.ones(5, 14, dtype=bool).tril(6).expand(2, 1, 5, 14)},
    ],
    ids=["softcap", "sinks", "mask"],
)
def test_what_the_kernel_does_not_know_is_attended_to_by_the_formula(formula):
    given = call(3, **formula)
    torch.testing.assert_close(_Joined().attend(0, given), given.dense())


def test_numbers_that_do_not_lie_side_by_side_are_read_right():
    given = call(3)
    apart = {name: getattr(given, name).mT.contiguous().mT for name in ("query", "key", "value")}
    for name, tensor in apart.items():
        torch.testing.assert_close(_Joined().attend(0, replace(given, **{name: tensor})), given.dense())


def test_keys_far_apart_in_size_join_without_overflow():
    given = call(1, chunk=3, past=4)
    given.key[:, :, :4] *= 1e4
    torch.testing.assert_close(_Joined().attend(0, given), given.dense())


def test_pieces_hold_the_keys_and_values_of_the_whole():
    hf = seeded(tiny_config("llama"))
    whole, parts = (prefill(hf, IDS, room=4, chunk=chunk) for chunk in (90, 32))
    for layer in range(2):
        for one, other in zip(whole.keys_values(layer), parts.keys_values(layer), strict=True):
            torch.testing.assert_close(other, one, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(("implementation", "chunks"), [("sdpa", 2), ("eager", 0)])
def test_pieces_after_the_first_are_joined_where_the_model_attends_by_that_kernel(implementation, chunks):
    hf = seeded(tiny_config("llama"))
    hf.set_attn_implementation(implementation)
    with patch.object(module, "attached", wraps=attached) as routed:
        prefill(hf, IDS, room=4, chunk=32)
    assert routed.call_count == chunks


def test_a_text_beyond_the_window_of_all_layers_is_the_models_own():
    hf = tiny("mistral", sliding_window=40)
    whole, parts = (prefill(hf, IDS, room=4, chunk=chunk) for chunk in (90, 32))
    for one, other in zip(whole.cache.layers, parts.cache.layers, strict=True):
        torch.testing.assert_close(other.keys[:, :, -39:], one.keys[:, :, -39:], atol=1e-5, rtol=1e-5)


def test_few_tokens_at_once_on_a_cpu():
    assert tokens_at_once("cpu") < tokens_at_once("cuda")
    hf, seen = seeded(tiny_config("llama")), []
    hf.get_input_embeddings().register_forward_hook(lambda _module, ids, _output: seen.append(ids[0].shape[1]))
    prefill(hf, torch.randint(5, 200, (1, tokens_at_once("cpu") + 7)), room=4)
    assert seen == [tokens_at_once("cpu"), 7]
