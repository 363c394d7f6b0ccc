"""Files for models of which some layers are sparse: they hold those, by their numbers, and fit no other model."""

import pytest
from families import tiny

import sahub
from sahub.calibration.channels import write_channels
from sahub.calibration.hash_learning import Learning
from sahub.calibration.hash_training import task_named, train
from sahub.engine.model import Model, wrap_model
from sahub.engine.session import Attention, Session
from sahub.errors import ConfigError


@pytest.fixture(scope="module")
def gated(tokenizer) -> Model:
    """A model whose last layer alone attends to all keys; its projections hold gates beside the queries."""
    return wrap_model(tiny("qwen3_next"), tokenizer)


def answered(model: Model, stage: dict) -> set[int]:
    """The sparse layers of an answer with a stack of a sink and a stage."""
    session = Session(model)
    stack = sahub.build_stack([{"name": "sink", "sink_size": 2}, {**stage, "density": 0.2}])
    prefix = session.prefix(tuple(model.context_ids("The quick brown fox jumps. " * 8)), 32)
    run = session.generate(prefix, model.question_ids("Who?", ""), Attention(stack=stack), max_new_tokens=3)
    return {layer for layer, _ in run.hook.tallies}


def test_channels(gated, tokenizer, tmp_path) -> None:
    file = tmp_path / "channels.json"
    lists = write_channels(gated, file, "Some text of which channels are learned. " * 5)
    assert sorted(lists) == ["model.layers.3.self_attn.k_proj", "model.layers.3.self_attn.qk_proj"]
    stage = {"name": "double_sparsity", "group_factor": 2, "sorted_channel_file": str(file)}
    assert answered(gated, {**stage, "channel_selection": "k_proj"}) == {3}
    other = wrap_model(tiny("qwen3_next", layer_types=["full_attention"] + ["linear_attention"] * 3), tokenizer)
    with pytest.raises(
        ConfigError, match=r"is of 1 layers \(without layer 0\), 4 heads and head_dim 16; the model has 1 that can"
    ):
        answered(other, {**stage, "channel_selection": "qk_proj"})


def test_hash_weights(gated, tmp_path) -> None:
    file = tmp_path / "hashes.safetensors"
    settings = Learning(bits=12, mlp_layers=2, hidden_size=16, top=8, rows=24, steps=3, learning_rate=0.02)
    found = train(gated, [task_named("ruler/niah_single_1")], file, settings, texts=2, length=600)
    assert found.layers == (3,)
    fields = {"weights": str(file), "hat_bits": 12, "hat_mlp_layers": 2, "hat_mlp_hidden_size": 16}
    assert answered(gated, {"name": "hash_attention", **fields}) == {3}
