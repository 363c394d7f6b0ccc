"""Families whose layers differ: sparse where all keys are attended to, and nothing else is touched or forgotten."""

import copy
from collections.abc import Iterator
from functools import partial
from itertools import product

import pytest
import torch
from families import FAMILIES, session_of, tiny
from torch import Tensor, nn
from transformers import DynamicCache, PreTrainedModel

import sahub
from sahub.attention.selection import Selection
from sahub.engine.call_stats import Inputs
from sahub.engine.contexts.prefill import prefill
from sahub.engine.session import Attention, Session
from sahub.models.supported import FULL, geometry, layer_kinds

DENSE = Attention(stack=sahub.build_stack([{"name": "dense"}]), measure=0)
SPARSE = Attention(
    stack=sahub.build_stack(
        [
            {"name": "sink", "sink_size": 2},
            {"name": "local", "window_size": 4},
            {"name": "oracle_top_k", "density": 0.3},
        ],
        density=0.3,
    ),
    measure=0,
)
IDS = torch.randint(3, 500, (1, 110), generator=torch.Generator().manual_seed(1))
CONTEXT, QUESTION = tuple(IDS[0, :80].tolist()), IDS[0, 80:].tolist()
OTHER = list(range(40, 63))
TWINS = {"ministral", "qwen3_5", "qwen3_5_moe"}  # of families that are tried each time
MODELS = [
    pytest.param(
        (family, heads), id=f"{family}-{heads}", marks=pytest.mark.slow if heads == 4 or family in TWINS else ()
    )
    for family in FAMILIES
    for heads in (2, 4)
]


@pytest.fixture(scope="module", params=MODELS)
def hf(request: pytest.FixtureRequest) -> PreTrainedModel:
    family, heads = request.param
    return tiny(family, num_key_value_heads=heads)


@pytest.fixture
def session(hf: PreTrainedModel) -> Session:
    return session_of(hf)


@torch.inference_mode()
def own_logits(hf: PreTrainedModel, *chunks: Tensor) -> Tensor:
    """The model's own logits [n, vocabulary] of the last of `chunks`, with a cache of its own."""
    cache = DynamicCache(config=hf.config)
    for chunk in chunks:
        logits = hf(input_ids=chunk, past_key_values=cache, use_cache=True).logits
    return logits[0].float()


@pytest.mark.parametrize("chunk", [8192, 32])
def test_the_dense_stack_is_the_model(hf: PreTrainedModel, session: Session, chunk: int, monkeypatch) -> None:
    monkeypatch.setattr("sahub.engine.session.prefill", partial(prefill, chunk=chunk))
    rest = torch.cat([IDS[:, 80:], torch.arange(9)[None] + 5], dim=1)
    expected = own_logits(hf, *IDS[:, :80].split(chunk, dim=1), rest)[-10:]
    prefix = session.prefix(CONTEXT, 64)
    for attention in (Attention(), DENSE):
        found = session.force(prefix, QUESTION, list(range(5, 15)), attention).logits
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    whole = own_logits(hf, torch.cat([IDS[:, :80], rest], dim=1))[-10:]
    torch.testing.assert_close(expected, whole, atol=1e-3, rtol=1e-3)


def test_the_dense_stack_generates_what_the_model_does(hf: PreTrainedModel, session: Session) -> None:
    made = hf.generate(
        IDS, max_new_tokens=12, do_sample=False, eos_token_id=None, return_dict_in_generate=True, output_scores=True
    )
    assert same_until_a_tie(
        session.generate(session.prefix(CONTEXT, 64), QUESTION, DENSE, max_new_tokens=12).ids, made, row=0
    )


def same_until_a_tie(ids: list[int], made, row: int) -> bool:
    """Whether `ids` are what `generate` made, up to the first step whose two best logits are closer than 1e-3."""
    best = torch.stack([score[row].topk(2).values for score in made.scores])
    close = (best[:, 0] - best[:, 1] < 1e-3).nonzero()
    steps = int(close[0]) if len(close) else len(best)
    assert steps >= 8, "the seed is a bad one: choose another"
    return ids[:steps] == made.sequences[row, IDS.shape[1] :][:steps].tolist()


def test_padded_prompts_generate_as_the_model_does(hf: PreTrainedModel) -> None:
    mask = torch.ones(2, 110, dtype=torch.long)
    mask[1, :30] = 0
    ids = torch.cat([IDS, IDS.roll(-30, 1).masked_fill(mask[1] == 0, 2)])
    settings = {"max_new_tokens": 10, "do_sample": False, "eos_token_id": None, "output_scores": True}
    settings |= {"attention_mask": mask, "return_dict_in_generate": True}
    own = hf.generate(ids, **settings)
    with sahub.sparse(hf, DENSE.stack):
        ours = hf.generate(ids, **settings)
    for row in range(2):
        assert same_until_a_tie(ours.sequences[row, 110:].tolist(), own, row)
    for ours_step, own_step in zip(ours.scores, own.scores, strict=True):
        if not torch.equal(ours_step.argmax(-1), own_step.argmax(-1)):
            break
        torch.testing.assert_close(ours_step, own_step, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("attention", [Attention(), SPARSE], ids=["own", "sparse"])
def test_questions_do_not_see_each_other(hf: PreTrainedModel, session: Session, attention: Attention) -> None:
    alone = session_of(hf)
    expected = alone.generate(alone.prefix(CONTEXT, 64), QUESTION, attention, max_new_tokens=6)
    prefix = session.prefix(CONTEXT, 64)
    for before in (OTHER, OTHER[:1], QUESTION):
        session.generate(prefix, before, attention, max_new_tokens=5)
        found = session.generate(prefix, QUESTION, attention, max_new_tokens=6)
        assert found.ids == expected.ids
        assert torch.equal(found.logits, expected.logits)


def own_parts(hf: PreTrainedModel) -> Iterator[tuple[int, nn.Module]]:
    """The mixers of a model that are no full attention, with their layers."""
    kinds = layer_kinds(hf.config)
    for module in hf.modules():
        layer, states = getattr(module, "layer_idx", None), hasattr(module, "conv1d")
        windowed = hasattr(module, "num_key_value_groups") and layer is not None and kinds[layer] not in FULL
        if layer is not None and (states or windowed):
            yield layer, module


def test_all_other_layers_are_the_models_own_to_the_bit(hf: PreTrainedModel, session: Session) -> None:
    heard: dict[nn.Module, list[tuple]] = {module: [] for _, module in own_parts(hf)}

    def listen(module, args, kwargs, output):
        held = {name: value for name, value in kwargs.items() if not isinstance(value, DynamicCache)}
        heard[module].append((args, shared(held), output))

    handles = [module.register_forward_hook(listen, with_kwargs=True) for module in heard]
    session.generate(session.prefix(CONTEXT, 64), QUESTION, SPARSE, max_new_tokens=4)
    for handle in handles:
        handle.remove()
    assert bool(heard) == (layer_kinds(hf.config) != ("full_attention",) * geometry(hf.config).num_layers)
    own = DynamicCache(config=hf.config)
    with torch.inference_mode():
        for module, calls in heard.items():
            for args, kwargs, output in calls:
                given = {name: own if name in ("past_key_values", "cache_params") else kwargs[name] for name in kwargs}
                again = module(*args, **given)
                first = [one[0] if isinstance(one, tuple) else one for one in (again, output)]
                assert torch.equal(*first), type(module).__name__
    assert all(len(calls) == 5 for calls in heard.values())  # context, question, three answers


def shared(kwargs: dict) -> dict:
    """Keyword arguments as they are now: what layers share is written to as the pass goes on."""
    return {name: copy.copy(value) if name == "shared_kv_states" else value for name, value in kwargs.items()}


def test_a_sparse_stack_is_the_slow_formula(hf: PreTrainedModel, session: Session, monkeypatch) -> None:
    prefix = session.prefix(CONTEXT, 64)
    found = session.force(prefix, QUESTION, [5, 6, 7, 8], SPARSE).logits
    shares = [
        float(tally.density) / tally.rows
        for tally in session.force(prefix, QUESTION, [5], SPARSE).hook.tallies.values()
    ]
    assert all(0.25 < share < 0.4 for share in shares)
    monkeypatch.setattr(Inputs, "sparse", slow)
    expected = session.force(prefix, QUESTION, [5, 6, 7, 8], SPARSE).logits
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)


def slow(call: Inputs, selection: Selection) -> Tensor:
    """Attention to the selected keys, a head and a row at a time, in fp64."""
    kept, group = selection.probabilities() > 0, call.query.shape[1] // call.key.shape[1]
    out = torch.zeros(call.query.shape[0], call.query.shape[2], call.query.shape[1], call.value.shape[3])
    for b, row, head in product(range(out.shape[0]), range(out.shape[1]), range(out.shape[2])):
        at = kept[b, head, row].nonzero()[:, 0]
        keys, values = (x[b, head // group, at].double() for x in (call.key, call.value))
        logits = keys @ call.query[b, head, row].double() * call.scale
        if call.softcap is not None:
            logits = call.softcap * (logits / call.softcap).tanh()
        shares = logits.exp()
        total = shares.sum() + (0 if call.sinks is None else call.sinks[head].double().exp())
        out[b, row, head] = (shares / total) @ values
    return out
