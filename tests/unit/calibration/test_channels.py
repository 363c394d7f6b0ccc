"""Files that index methods read: channels measured on a text, hash weights converted from published ones."""

import collections
import io
import json
import os
import pickle

import pytest
import torch
from hash_files import hash_tensors
from safetensors.torch import load_file

from sahub.attention.call import Geometry
from sahub.builders.build import build_stack
from sahub.calibration.channels import calibrate, write_channels
from sahub.calibration.hash_convert import convert
from sahub.engine.model import wrap_model
from sahub.errors import ConfigError, DataError

TEXT = "Some words about nothing much, and then a few more of them. " * 4


def test_channels_are_ordered_by_what_the_model_does_with_a_text(make_model, tokenizer, tmp_path):
    model = wrap_model(make_model(), tokenizer)
    seen = collections.defaultdict(list)
    for name, module in model.hf.named_modules():
        if name.endswith(("q_proj", "k_proj")):
            module.register_forward_hook(
                lambda _, __, out, name=name: seen[name].append(out[0].unflatten(-1, (-1, 16)))
            )
    file = tmp_path / "channels.json"
    lists = write_channels(model, file, TEXT, tokens=90, block=40)
    assert model.hf.config._attn_implementation != "sahub"
    assert json.loads(file.read_text()) == lists
    assert len(lists) == 2 * 3
    for name, outputs in seen.items():
        size = torch.cat(outputs).abs().double().mean(0)
        assert size.shape == (4 if name.endswith("q_proj") else 2, 16)
        assert lists[name] == size.argsort(dim=-1, descending=True).tolist()
        assert sum(len(part) for part in outputs) == 90
    for selection in ("q_proj", "k_proj", "qk_proj"):
        stage = {"name": "double_sparsity", "density": 0.1, "group_factor": 4, "channel_selection": selection}
        stack = build_stack([{**stage, "sorted_channel_file": str(file)}])
        stack.check(model.geometry)
        with pytest.raises(ConfigError, match="the model has 3 that can be sparse, "):
            stack.check(Geometry(3, 4, 2, 16))


def test_a_model_whose_projections_are_one_has_the_lists_after_the_rotary_embedding(make_model, tokenizer):
    lists = calibrate(wrap_model(make_model("phi3"), tokenizer), TEXT, tokens=60)
    assert sorted(lists) == [f"model.layers.{i}.self_attn.qk_proj" for i in (0, 1)]
    with pytest.raises(DataError, match="calibration needs more"):
        calibrate(wrap_model(make_model(), tokenizer), "a")


def published(kind="pickle"):
    """The same weights as a training checkpoint holds them, or as the predecessor's pickle does."""
    tensors = {name: tensor.bfloat16() for name, tensor in hash_tensors(heads=3).items()}
    if kind == "pickle":
        tree = {layer: collections.defaultdict(list) for layer in (0, 1)}
        for name, tensor in tensors.items():
            _, layer, side, _, part = name.split(".")
            tree[int(layer)][f"{side}_{'matrix' if part == 'weight' else 'bias'}"].append(tensor)
        return {layer: dict(parts) for layer, parts in tree.items()}, tensors
    state = {}
    for name, tensor in tensors.items():
        _, layer, side, i, part = name.split(".")
        for head in range(3):
            to = f"{layer}.learning_to_hash_transformation_{side[0]}.{head}.{2 * int(i)}.{part}"
            state[to] = (tensor[head].mT if part == "weight" else tensor[head]).contiguous()
    return state, tensors


@pytest.mark.parametrize("kind", ["pickle", "checkpoint"])
def test_published_weights_become_safetensors(kind, tmp_path):
    content, tensors = published(kind)
    source = tmp_path / ("hashes.hat_weights.pkl" if kind == "pickle" else "hashes.pt")
    if kind == "pickle":
        source.write_bytes(pickle.dumps(content))
    else:
        torch.save(content, source)
    found = convert(source, tmp_path / "out" / "hashes.safetensors", model="org/model")
    assert (len(found.layers), found.num_heads, found.head_dim, found.bits, found.hidden_size) == (2, 3, 8, 10, 6)
    back = load_file(tmp_path / "out" / "hashes.safetensors")
    assert back.keys() == tensors.keys()
    assert all(torch.equal(back[name], tensors[name]) for name in tensors)
    stage = {"name": "hash_attention", "density": 0.1, "hat_bits": 10, "hat_mlp_layers": 2, "hat_mlp_hidden_size": 6}
    stage["weights"] = str(tmp_path / "out" / "hashes.safetensors")
    build_stack([stage]).check(Geometry(2, 3, 1, 8))
    for wrong, message in (
        ({"hat_bits": 32}, "hat_bits=32: must be 10"),
        ({"hat_mlp_layers": 3}, "hat_mlp_layers=3: must be 2"),
        ({"hat_mlp_activation": "relu"}, "hat_mlp_activation=relu: must be silu"),
        ({"weights": None}, "weights=None: must name a safetensors file"),
        ({"weights": str(tmp_path / "none")}, "cannot be read"),
        ({"weights": str(source)}, "is not a safetensors file"),
    ):
        with pytest.raises(ConfigError, match=message):
            build_stack([{**stage, **wrong}])
    for geometry in (Geometry(3, 3, 1, 8), Geometry(2, 4, 2, 8), Geometry(2, 3, 1, 16)):
        with pytest.raises(ConfigError, match=r"HashAttention.weights=.*: are for 2 layers.*, 3 heads and head_dim 8"):
            build_stack([stage]).check(geometry)


class Malicious:
    """Runs a command where a pickle is trusted."""

    def __init__(self, mark) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.system, (f"touch {self.mark}",)


def test_a_malicious_file_runs_no_code(tmp_path):
    mark = tmp_path / "ran"
    nested = io.BytesIO()
    torch.save(Malicious(mark), nested, _use_new_zipfile_serialization=False)

    class Hidden:
        def __reduce__(self):
            return torch.storage._load_from_bytes, (nested.getvalue(),)

    weights, _ = published()
    for name, tree in (("plain.pkl", {**weights, 2: Malicious(mark)}), ("nested.pkl", {**weights, 2: Hidden()})):
        (tmp_path / name).write_bytes(pickle.dumps(tree))
    torch.save({"0.learning_to_hash_transformation_q.0.0.weight": Malicious(mark)}, tmp_path / "state.pt")
    (tmp_path / "broken.pkl").write_bytes(b"\x80\x04nothing")
    (tmp_path / "by_name.pkl").write_bytes(b"cbuiltins\neval\n(S'1'\ntR.")
    for name in ("plain.pkl", "nested.pkl", "state.pt", "broken.pkl", "by_name.pkl"):
        with pytest.raises(DataError) as caught:
            convert(tmp_path / name, tmp_path / "out.safetensors")
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)
    assert not mark.exists()
    assert not (tmp_path / "out.safetensors").exists()
    pickle.loads((tmp_path / "plain.pkl").read_bytes())  # the file means what it says
    assert mark.exists()


@pytest.mark.parametrize("content", [[], {"a": 1}, {0: {"query_matrix": [1]}}, {0: {"query_matrix": None}}])
def test_a_pickle_of_something_else_is_refused(content, tmp_path):
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(content))
    with pytest.raises(DataError, match=r"odd\.pkl"):
        convert(tmp_path / "odd.pkl", tmp_path / "out.safetensors")


def test_weights_of_a_wrong_shape_fail_by_name(tmp_path):
    tree, _ = published()
    tree[1]["key_bias"][0] = tree[1]["key_bias"][0][:, :-1]
    (tmp_path / "odd.pkl").write_bytes(pickle.dumps(tree))
    with pytest.raises(ConfigError, match=r"layers\.1\.key\.0\.bias is \[3, 5\], must be \[3, 6\]"):
        convert(tmp_path / "odd.pkl", tmp_path / "out.safetensors")
