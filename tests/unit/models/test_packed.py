"""Linear layers whose weights lie in blocks: the same products, and the layers that have them."""

import pytest
import torch
from families import FAMILIES, tiny
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from transformers import LlamaConfig, LlamaForCausalLM

from sahub.engine.model import load_model
from sahub.models import packed as packing
from sahub.models.packed import Packed, pack

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
    kind=st.sampled_from([torch.float32, torch.bfloat16]),
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
    assert kinds == {**large, **small, "lm_head": nn.Linear}
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
