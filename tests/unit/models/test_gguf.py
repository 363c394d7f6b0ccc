"""GGUF files: the same model as its safetensors, stored as it says; what is not read of them is refused by name."""

import copy
from pathlib import Path

import gguf as writing
import pytest
import torch

from sahub.engine.model import load_model
from sahub.errors import ConfigError, UnsupportedModel
from sahub.models import gguf
from sahub.models.weights import digest_of_model, files_of

TEXT = "A day in  1999, 12 boxes.\n\n7 more: won't\n"
TEMPLATE = "{% for m in messages %}[{{ m.role }}] {{ m.content }}{% endfor %}[assistant] "


def permuted(weight: torch.Tensor, heads: int) -> torch.Tensor:
    """llama.cpp's order of the rows of query and key projections."""
    return weight.view(heads, 2, -1, weight.shape[1]).swapaxes(1, 2).reshape(weight.shape)


def written(
    file: Path, model, tokenizer, *, blocks: bool = False, pre: str = "gpt-2", factors=None, **metadata
) -> Path:
    """The model and a byte-level tokenizer in one GGUF file."""
    config, out = model.config, writing.GGUFWriter(str(file), "llama")
    out.add_name("tiny")
    out.add_block_count(config.num_hidden_layers)
    out.add_context_length(config.max_position_embeddings)
    out.add_embedding_length(config.hidden_size)
    out.add_feed_forward_length(config.intermediate_size)
    out.add_head_count(config.num_attention_heads)
    out.add_head_count_kv(config.num_key_value_heads)
    out.add_rope_freq_base(config.rope_parameters["rope_theta"])
    out.add_layer_norm_rms_eps(config.rms_norm_eps)
    out.add_vocab_size(config.vocab_size)
    words = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    tokens = [*(word for word, _ in words), "ZQ"]  # and what its only merge makes
    tokens += [f"<|spare{n}|>" for n in range(config.vocab_size - len(tokens))]
    out.add_tokenizer_model("gpt2")
    out.add_tokenizer_pre(pre)
    out.add_token_list(tokens)
    out.add_token_types([3 if token.startswith("<|") else 1 for token in tokens])
    out.add_token_merges(["Z Q"])
    out.add_bos_token_id(0)
    out.add_eos_token_id(1)
    out.add_chat_template(TEMPLATE)
    for key, value in metadata.items():
        out.add_string(key.replace("__", "."), value)
    if factors is not None:
        out.add_tensor("rope_freqs.weight", factors.numpy().copy())
    names = writing.get_tensor_name_map(writing.MODEL_ARCH.LLAMA, config.num_hidden_layers)
    for name, weight in model.state_dict().items():
        heads = {"q_proj": config.num_attention_heads, "k_proj": config.num_key_value_heads}
        held = next((permuted(weight, count) for part, count in heads.items() if part in name), weight)
        stored = held.float().numpy().copy()
        kind = None
        if blocks and weight.ndim == 2:
            kind = writing.GGMLQuantizationType.Q8_0
            stored = writing.quants.quantize(stored, kind)
        out.add_tensor(names.get_name(name, try_suffixes=(".weight", ".bias")), stored, raw_dtype=kind)
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    return file


@pytest.fixture(scope="module")
def model(make_model):
    return make_model()


def test_a_file_is_the_model_that_was_written(model, tokenizer, tmp_path, capsys):
    file = str(written(tmp_path / "tiny.gguf", model, tokenizer))
    capsys.readouterr()
    loaded = load_model(file, name="tiny")
    assert capsys.readouterr().err == ""
    ids = torch.tensor([[0, *tokenizer.encode(TEXT, add_special_tokens=False)]])
    with torch.inference_mode():
        assert torch.allclose(loaded.hf(ids).logits, model(ids).logits, atol=1e-4)
    assert loaded.encode(TEXT) == tokenizer.encode(TEXT, add_special_tokens=False)
    assert (loaded.stored, loaded.max_context_length, loaded.stop_ids) == ("F32", 4096, frozenset({1}))
    assert loaded.template
    assert loaded.tokenizer.decode(loaded.context_ids("One.") + loaded.question_ids(" Two?", "3")) == (
        "[user] One. Two?[assistant] 3"
    )


def test_blocks_are_unpacked_and_named(model, tokenizer, tmp_path):
    loaded = load_model(str(written(tmp_path / "tiny.gguf", model, tokenizer, blocks=True)))
    assert loaded.stored == "Q8_0, dequantised"
    assert {weight.dtype for weight in loaded.hf.parameters()} == {torch.float32}
    apart = max((a - b).abs().max() for a, b in zip(loaded.hf.parameters(), model.parameters(), strict=True))
    assert 0 < apart < 0.05


def test_a_file_is_known_by_its_content(model, tokenizer, tmp_path):
    first, other = tmp_path / "a.gguf", tmp_path / "b.gguf"
    written(first, model, tokenizer)
    written(other, model, tokenizer, blocks=True)
    assert files_of(str(first)) == [first]
    digests = {digest_of_model(str(file), None, str(tmp_path / "cache")) for file in (first, other)}
    assert len(digests) == 2
    assert gguf.num_parameters(first) == sum(weight.numel() for weight in model.state_dict().values())


def test_digits_stand_apart_where_the_file_says_so(model, tokenizer, tmp_path):
    file = written(tmp_path / "tiny.gguf", model, tokenizer, pre="smollm")
    words = load_model(str(file)).tokenizer.backend_tokenizer
    pieces = [piece for piece, _ in words.pre_tokenizer.pre_tokenize_str("in  1999,\n\n7 more")]
    assert pieces == ["in", "ĠĠ", "1", "9", "9", "9", ",", "ĊĊ", "7", "Ġmore"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pre": "some-new-way"}, r"tokenizer\.ggml\.pre=some-new-way: how it splits texts is not known"),
        ({"llama__rope__scaling__type": "yarn"}, r"rotary positions are scaled \(rope\.scaling\.type=yarn\)"),
    ],
)
def test_what_is_not_read_of_a_file_is_refused(changes, message, model, tokenizer, tmp_path):
    file = written(tmp_path / "tiny.gguf", model, tokenizer, **changes)
    with pytest.raises(UnsupportedModel, match=message) as caught:
        load_model(str(file))
    assert str(caught.value).startswith(f"model.path={file}: ")


LLAMA3 = {
    "rope_type": "llama3", "rope_theta": 10000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}  # fmt: skip


def test_frequencies_that_stand_beside_the_weights_are_used(make_model, tokenizer, tmp_path):
    model, plain = make_model(rope_parameters=LLAMA3), make_model()
    factors = plain.model.rotary_emb.inv_freq / model.model.rotary_emb.inv_freq
    assert float(factors.max()) == pytest.approx(8.0)
    loaded = load_model(str(written(tmp_path / "tiny.gguf", model, tokenizer, factors=factors)))
    ids = torch.tensor([[0, *tokenizer.encode(TEXT * 8, add_special_tokens=False)]])
    with torch.inference_mode():
        assert torch.allclose(loaded.hf(ids).logits, model(ids).logits, atol=1e-3)
        assert not torch.allclose(loaded.hf(ids).logits, plain(ids).logits, atol=0.1)
    with pytest.raises(UnsupportedModel, match=r"rope_freqs\.weight does not fit"):
        load_model(str(written(tmp_path / "odd.gguf", model, tokenizer, factors=factors[:3])))


@pytest.mark.parametrize("architecture", ["clip", "whisper", "nosuch"])
def test_another_architecture_is_named(architecture, tmp_path):
    out = writing.GGUFWriter(str(tmp_path / "other.gguf"), architecture)
    out.add_name("other")
    out.add_tensor("a", torch.zeros(4).numpy())
    out.write_header_to_file()
    out.write_kv_data_to_file()
    out.write_tensors_to_file()
    out.close()
    with pytest.raises(ConfigError, match=r"cannot be read as a GGUF model") as caught:
        load_model(str(tmp_path / "other.gguf"))
    assert "\n" not in str(caught.value)


def test_missing_weights_of_a_file_are_named(make_model, tokenizer, tmp_path):
    short = copy.deepcopy(make_model())
    del short.model.layers[1].mlp.up_proj
    with pytest.raises(ConfigError, match=r"not in the files: model\.layers\.1\.mlp\.up_proj\.weight"):
        load_model(str(written(tmp_path / "short.gguf", short, tokenizer)))


@pytest.mark.parametrize("content", [b"", b"junk", b"GGUF\x03\x00\x00\x00\xff\xfe\xff\xff junk"])
def test_a_file_that_is_none_is_named_wherever_it_is_read(content, tmp_path):
    file = tmp_path / "model.gguf"
    file.write_bytes(content)
    for read in (gguf.stored, gguf.num_parameters):
        with pytest.raises(ConfigError, match=rf"model.path={file}: cannot be read as a GGUF file: .*; fetch it again"):
            read(file)
