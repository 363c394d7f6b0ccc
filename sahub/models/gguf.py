"""GGUF files: configuration and weights in one, by transformers' own readers; its blocks are unpacked on loading."""

from collections.abc import Mapping, Sequence
from functools import lru_cache
from math import prod
from pathlib import Path
from typing import Any

import torch
from tokenizers import pre_tokenizers
from transformers import AutoConfig, PretrainedConfig, PreTrainedModel
from transformers.integrations.gguf.dequant import GGML_NAME
from transformers.integrations.gguf.gguf_tokenizer_mapping import GGUF_PRE_TOKENIZER_SPLITS
from transformers.integrations.gguf.reader import GgufHeader, load_gguf_state_dict, read_gguf_metadata

from sahub.errors import ConfigError, UnsupportedModel
from sahub.models.checkpoint import said

# What stands in `tokenizer.ggml.pre` for GPT-2's own way to split a text, and for that with every digit apart.
SPLITS = ("default", "gpt-2", "mpt", "olmo", "phi-2", "roberta-bpe")
DIGITS = ("smollm", "starcoder", "refact", "command-r", "codeshell", "exaone", "minerva-7b")
FACTORS = "rope_freqs.weight"
PLAIN = {0: "F32", 1: "F16", 30: "BF16"}  # types that hold numbers, not blocks


def read_config(file: Path) -> PretrainedConfig:
    """The configuration that the file's metadata stand for. Raises ConfigError and UnsupportedModel."""
    state = file.stat()
    return _read_config(str(file), state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=8)
def _read_config(file: str, changed: int, size: int) -> PretrainedConfig:
    del changed, size  # a file that changes is read again
    try:
        metadata, tensors = read_gguf_metadata(file)
        config = AutoConfig.from_pretrained(str(Path(file).parent), gguf_file=Path(file).name, local_files_only=True)
    except Exception as error:
        raise ConfigError(f"model.path={file}: cannot be read as a GGUF model: {said(error)}") from error
    _check_read(file, config, metadata, tensors)
    return config


def _check_read(file: str, config: PretrainedConfig, metadata: Mapping[str, Any], tensors: Sequence[str]) -> None:
    """Raise UnsupportedModel for what the file says and transformers' reader leaves out without a word."""
    scaling = metadata.get(f"{metadata['general.architecture']}.rope.scaling.type", "none")
    factors = [name for name in tensors if name.startswith("rope_factors")]
    rope = getattr(config.get_text_config(), "rope_parameters", None) or {}
    if (scaling != "none" or factors) and rope.get("rope_type", "default") == "default":
        what = factors[0] if factors else f"rope.scaling.type={scaling}"
        raise UnsupportedModel(
            f"model.path={file}: its rotary positions are scaled ({what}), which transformers does not read from GGUF; "
            "use the model's safetensors"
        )
    split = metadata.get("tokenizer.ggml.pre", "default")
    if metadata.get("tokenizer.ggml.model") == "gpt2" and split not in {*SPLITS, *GGUF_PRE_TOKENIZER_SPLITS, *DIGITS}:
        raise UnsupportedModel(
            f"model.path={file}: tokenizer.ggml.pre={split}: how it splits texts is not known here; use the model's "
            "safetensors and tokenizer.json"
        )


def scaled(hf: PreTrainedModel, file: Path) -> PreTrainedModel:
    """The model with its rotary frequencies divided by the factors that the file holds beside its weights, if any.

    llama.cpp writes Llama 3's scaling so, and transformers' reader leaves it out. Raises UnsupportedModel where the
    factors are not those of the model's one set of frequencies.
    """
    held = load_gguf_state_dict(GgufHeader.from_file(str(file))).get(FACTORS)
    if held is None:
        return hf
    factors = held[...].to(hf.device, torch.float32)
    rotary = [part for part in hf.modules() if isinstance(getattr(part, "inv_freq", None), torch.Tensor)]
    if [part.inv_freq.shape for part in rotary] != [factors.shape]:
        raise UnsupportedModel(f"model.path={file}: {FACTORS} does not fit its rotary positions; use its safetensors")
    rotary[0].inv_freq.div_(factors)
    rotary[0].original_inv_freq = rotary[0].inv_freq.clone()
    return hf


def completed(tokenizer: Any, file: Path) -> Any:
    """The tokenizer that transformers made of the file, its digits apart where the file says so."""
    metadata, _ = read_gguf_metadata(str(file))
    if metadata.get("tokenizer.ggml.model") == "gpt2" and metadata.get("tokenizer.ggml.pre") in DIGITS:
        tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
        )
    return tokenizer


def stored(file: Path) -> str:
    """How the file holds most of its weights, and what becomes of it: `Q4_1, dequantised`."""
    counts: dict[int, int] = {}
    for tensor in _header(file).tensors:
        counts[tensor.ggml_type] = counts.get(tensor.ggml_type, 0) + prod(tensor.shape)
    most = max(counts, key=counts.__getitem__)
    return PLAIN[most] if most in PLAIN else f"{GGML_NAME[most]}, dequantised"


def num_parameters(file: Path) -> int:
    """Numbers that the file holds."""
    return sum(prod(tensor.shape) for tensor in _header(file).tensors)


def _header(file: Path) -> GgufHeader:
    """What stands before the weights. Raises ConfigError for a file that is none of GGUF's."""
    try:
        return GgufHeader.from_file(str(file))
    except Exception as error:
        raise ConfigError(f"model.path={file}: cannot be read as a GGUF file: {said(error)}; fetch it again") from error
