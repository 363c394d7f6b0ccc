"""Folders of models that are damaged, cut or contradictory: a line that names the file or the key, before work."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sahub.engine.model import load_model
from sahub.errors import SahubError
from sahub.files.package import ROOT

WEIGHTS = "model.safetensors"


@pytest.fixture
def folder(tmp_path) -> Path:
    for name in ("config.json", WEIGHTS, "tokenizer.json", "tokenizer_config.json"):
        shutil.copy(ROOT / "embedded" / name, tmp_path)
    return tmp_path


def says(folder: Path) -> str:
    with pytest.raises(SahubError) as caught:
        load_model(str(folder))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def configured(folder: Path, **values) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | values))


def test_the_folder_as_it_is_can_be_read(folder):
    assert load_model(str(folder)).geometry.num_layers == 4


@pytest.mark.parametrize("key", ["num_hidden_layers", "num_attention_heads", "num_key_value_heads", "hidden_size"])
@pytest.mark.parametrize("value", [0, -1])
def test_a_size_that_no_model_has_is_named(folder, key, value):
    configured(folder, **{key: value})
    assert says(folder) == f"model.path={folder}: config.json: {key}={value}: must be at least 1"


def test_positions_of_a_text_model_inside_another_are_looked_at(folder):
    config = {"model_type": "gemma3", "text_config": {"max_position_embeddings": 0}}
    (folder / "config.json").write_text(json.dumps(config))
    assert "config.json: text_config.max_position_embeddings=0: must be at least 1" in says(folder)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"rope_parameters": {"rope_type": "nonesuch", "rope_theta": 1e4}}, "rope_parameters.rope_type=nonesuch: not"),
        ({"rope_scaling": {"rope_type": "nonesuch"}}, "rope_scaling.rope_type=nonesuch: not known to transformers"),
        ({"hidden_act": "nonesuch"}, "hidden_act=nonesuch: not known to transformers"),
        ({"model_type": "nonesuch"}, "model_type=nonesuch: not known to transformers"),
        ({"head_dim": "8"}, "head_dim='8': must be of type int"),
        ({"vocab_size": 2.5}, "vocab_size=2.5: must be of type int"),
    ],
)
def test_a_value_that_is_not_known_is_named_by_its_key(folder, values, named):
    configured(folder, **values)
    assert f"model.path={folder}: config.json: {named}" in says(folder)


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "tokenizer_config.json"])
@pytest.mark.parametrize("content", [b"", b'{"a":', b"\xff\xfe\x00", b"[]"])
def test_a_file_of_words_that_is_damaged_is_named(folder, name, content):
    (folder / name).write_bytes(content)
    assert says(folder).startswith(f"model.path={folder}: {name}: ")


@pytest.mark.parametrize("size", [0, 7, 100, 100_000])
def test_torn_weights_are_named(folder, size):
    file = folder / WEIGHTS
    file.write_bytes(file.read_bytes()[:size])
    assert f"{WEIGHTS}: is torn" in says(folder)


def test_a_shard_that_is_not_here_is_named(folder):
    (folder / WEIGHTS).unlink()
    index = {"metadata": {}, "weight_map": {"a": "model-00001-of-00002.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "index.json: names model-00001-of-00002.safetensors, which is not here" in says(folder)


def test_a_folder_without_a_tokenizer_is_named(folder):
    (folder / "tokenizer.json").unlink()
    assert "this folder holds no tokenizer" in says(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(folder, value):
    weights = load_file(folder / WEIGHTS)
    weights["model.layers.1.self_attn.q_proj.weight"][3] = value
    save_file(weights, folder / WEIGHTS, metadata={"format": "pt"})
    assert "its logits are NaN: the weight model.layers.1.self_attn.q_proj.weight holds NaN" in says(folder)


def test_weights_that_overflow_a_small_type_say_so(folder):
    weights = load_file(folder / WEIGHTS)
    weights["model.layers.0.mlp.up_proj.weight"] *= 3e4
    weights["model.layers.0.mlp.gate_proj.weight"] *= 3e3
    save_file(
        {name: one.to(torch.float32) for name, one in weights.items()}, folder / WEIGHTS, metadata={"format": "pt"}
    )
    load_model(str(folder), dtype="float32")
    with pytest.raises(SahubError, match=r"overflow in float16; try model\.dtype=float32"):
        load_model(str(folder), dtype="float16")


def test_a_value_that_makes_nan_of_finite_weights_is_looked_for_in_the_configuration(folder):
    configured(folder, rope_parameters={"rope_type": "default", "rope_theta": 0})
    assert "its logits are NaN: its weights are finite, so a value in its config.json cannot be" in says(folder)
