"""Linear layers whose weights lie in blocks: the same products, and the layers that have them."""

import weakref

import pytest
import torch
from families import FAMILIES, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from sahub.engine.model import load_model
from sahub.engine.probe import probe
from sahub.errors import UnsupportedModel
from sahub.models import packed as packing
from sahub.models.packed import Packed, pack

KINDS = [torch.float32] + [torch.bfloat16] * torch.ops.mkldnn._is_mkldnn_bf16_supported()
pytestmark = pytest.mark.skipif(not torch.backends.mkldnn.is_available(), reason="torch is built without oneDNN")


@pytest.fixture(autouse=True)
def any_cpu(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")


def packed_of(layer: nn.Linear) -> Packed:
    model = nn.Sequential(layer)
    pack(model)
    assert type(model[0]) is Packed
    return model[0]


@given(
    lead=st.sampled_from([(1,), (7,), (64,), (1, 1), (1, 43), (3, 5), (2, 0)]),
    sizes=st.sampled_from([(333, 301), (512, 224), (100, 1000), (1, 100_000)]),
    bias=st.booleans(),
    kind=st.sampled_from(KINDS),
    seed=st.integers(0, 2**31),
)
def test_products_are_those_of_the_layer(lead, sizes, bias, kind, seed):
    torch.manual_seed(seed)
    layer = nn.Linear(sizes[1], sizes[0], bias=bias, dtype=kind)
    rows = torch.randn(*lead, sizes[1], dtype=kind)
    with torch.inference_mode():
        exact = nn.functional.linear(rows.double(), layer.weight.double(), layer.bias.double() if bias else None)
        found = packed_of(layer)(rows)
    assert found.dtype == kind
    assert found.shape == exact.shape
    close = 1e-5 if kind == torch.float32 else 1e-2
    torch.testing.assert_close(found.double(), exact, rtol=close, atol=close)


def test_rows_of_a_transposed_batch_are_read_as_they_lie():
    layer, rows = nn.Linear(400, 300), torch.randn(5, 400, 3).transpose(1, 2)
    with torch.inference_mode():
        torch.testing.assert_close(packed_of(layer)(rows), layer(rows))


def test_a_model_answers_as_before_and_holds_no_weight_twice():
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=500, hidden_size=320, intermediate_size=400, num_hidden_layers=2, num_attention_heads=4,
        num_key_value_heads=1, tie_word_embeddings=True,
    )  # fmt: skip
    model, ids = LlamaForCausalLM(config).eval(), torch.randint(500, (1, 9))
    with torch.inference_mode():
        before = model(ids).logits
        pack(model)
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-4, atol=1e-5)
    kinds = {name.rpartition(".")[2]: type(part) for name, part in model.named_modules() if isinstance(part, nn.Linear)}
    large = dict.fromkeys(("q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"), Packed)
    small = dict.fromkeys(("k_proj", "v_proj"), nn.Linear)
    assert kinds == {**large, **small, "lm_head": Packed}
    assert model.lm_head.weight is model.get_input_embeddings().weight
    assert sum(part.numel() for part in model.parameters()) == model.num_parameters()


@pytest.mark.parametrize("family", FAMILIES)
def test_families_with_other_layers_answer_as_before(family, monkeypatch):
    monkeypatch.setattr(packing, "_LEAST", 1)
    model, ids = tiny(family), torch.arange(3, 26)[None]
    with torch.inference_mode():
        before = model(ids).logits
        pack(model)
        torch.testing.assert_close(model(ids).logits, before, rtol=1e-3, atol=1e-3)
    assert any(isinstance(part, Packed) for part in model.modules())


def test_what_asks_for_gradients_gets_them():
    layer, rows = nn.Linear(400, 300), torch.randn(3, 400, requires_grad=True)
    layer(rows).square().sum().backward()
    expected, rows.grad = rows.grad, None
    packed_of(layer)(rows).square().sum().backward()
    torch.testing.assert_close(rows.grad, expected)


def test_layers_that_share_a_weight_read_it_as_it_lies():
    one, other, alone = nn.Linear(400, 300), nn.Linear(400, 300), nn.Linear(400, 300)
    other.weight = one.weight
    model, rows = nn.ModuleDict({"one": one, "other": other, "alone": alone, "twice": one}), torch.randn(5, 400)
    with torch.inference_mode():
        before = [part(rows) for part in model.values()]
        pack(model)
        for part, expected in zip(model.values(), before, strict=True):
            torch.testing.assert_close(part(rows), expected)
    assert all(type(model[name]) is Packed for name in ("one", "other", "alone"))
    assert all(model[name].weight is one.weight for name in ("one", "other", "twice"))


def test_a_shared_weight_gives_gradients():
    model, rows = nn.ModuleList([nn.Linear(400, 300), nn.Linear(400, 300)]), torch.randn(3, 400, requires_grad=True)
    model[1].weight = model[0].weight
    model[0](rows).square().sum().backward()
    expected, rows.grad = rows.grad, None
    pack(model)
    model[0](rows).square().sum().backward()
    torch.testing.assert_close(rows.grad, expected)
    learned, model[0].weight.grad = model[0].weight.grad / 2, None  # of both runs
    model[0](rows.detach()).square().sum().backward()
    torch.testing.assert_close(model[0].weight.grad, learned)


def test_one_layer_after_the_other_is_held_twice():
    model, seen = nn.Sequential(*[nn.Linear(400, 300) for _ in range(4)]), []
    watched = [weakref.ref(layer.weight) for layer in model]
    reorder = torch.ops.mkldnn._reorder_linear_weight

    def noted(weight, rows):
        seen.append(sum(one() is not None for one in watched))
        return reorder(weight, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch.ops.mkldnn, "_reorder_linear_weight", noted)
        pack(model)
    assert seen == [4, 3, 2, 1]


def test_a_model_that_is_to_be_saved_keeps_its_layers(tmp_path):
    model = load_model("embedded", device="cpu", packed=False)
    assert not any(isinstance(part, Packed) for part in model.hf.modules())
    model.hf.save_pretrained(tmp_path)
    assert (tmp_path / "model.safetensors").exists()


def test_a_weight_that_is_damaged_later_is_named():
    model = load_model("embedded", device="cpu")
    model.hf.model.norm.weight.data.fill_(float("nan"))
    with pytest.raises(UnsupportedModel, match=r"model\.norm\.weight holds NaN"):
        probe(model.hf)


def test_layers_that_do_not_gain_stay():
    class Other(nn.Linear):
        """A layer that multiplies in its own way."""

    layers = [Other(400, 300), nn.Linear(400, 300, dtype=torch.float64), nn.Linear(64, 64)]
    model = nn.ModuleList(layers)
    pack(model)
    assert list(model) == layers


def test_other_cpus_keep_their_layers(monkeypatch):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    model = nn.Sequential(nn.Linear(400, 300))
    pack(model)
    assert type(model[0]) is nn.Linear


def test_a_model_that_is_loaded_on_the_cpu_is_packed():
    model = load_model("embedded", device="cpu")
    assert isinstance(model.hf.model.layers[0].mlp.up_proj, Packed)
    assert model.hf.dtype == torch.float32
