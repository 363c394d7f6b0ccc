"""Tiny random models of every supported family, and a tokenizer made for them."""

import atexit
import copy
import os
import shutil
from tempfile import mkdtemp

import pytest
from hypothesis import settings

# A busy machine fails no test, and a suite that passed passes again: new examples are for benchmarks/fuzz.py.
settings.register_profile("sahub", deadline=None, derandomize=True)
settings.load_profile("sahub")

os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

# Nothing that a test needs or leaves is in the caches of the person who runs it.
os.environ["XDG_CACHE_HOME"] = mkdtemp(prefix="sahub-tests-")
os.environ["MPLCONFIGDIR"] = f"{os.environ['XDG_CACHE_HOME']}/matplotlib"  # its list of fonts, made once
atexit.register(shutil.rmtree, os.environ["XDG_CACHE_HOME"], ignore_errors=True)

FAMILIES = ("llama", "qwen3", "mistral", "phi3")


def tiny_config(family: str, **changes):
    """Two layers, four query heads over two KV heads of 16, vocabulary 512."""
    from transformers import LlamaConfig, MistralConfig, Phi3Config, Qwen3Config

    shape = {
        "vocab_size": 512,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 4096,
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": 2,
        "sliding_window": None,
        **changes,
    }
    kind = {"llama": LlamaConfig, "qwen3": Qwen3Config, "mistral": MistralConfig, "phi3": Phi3Config}[family]
    if family == "qwen3":
        shape["head_dim"] = 16
    if family == "llama":
        shape.pop("sliding_window")
    return kind(**shape)


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Work of other tests is not found: a test that counts or breaks work has to see it done."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


@pytest.fixture(scope="session")
def tokenizer():
    """A byte-level tokenizer with 259 entries."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    signs = ["<|bos|>", "<|eos|>", "<|pad|>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    bare = Tokenizer(models.BPE({sign: i for i, sign in enumerate(signs)}, []))
    bare.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    bare.decoder = decoders.ByteLevel()
    return PreTrainedTokenizerFast(tokenizer_object=bare, bos_token="<|bos|>", eos_token="<|eos|>", pad_token="<|pad|>")


@pytest.fixture(scope="session")
def make_model():
    """A seeded random model of a family, fp32, its weights large enough to have opinions."""
    import torch
    from transformers import AutoModelForCausalLM

    torch.set_num_threads(1)

    def make(family: str = "llama", **changes):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(tiny_config(family, **changes)).eval()
        with torch.no_grad():
            for weight in model.parameters():
                if weight.ndim == 2:
                    weight.mul_(4.0)
        return model

    return make


@pytest.fixture(scope="module")
def chat(make_model, tokenizer):
    """A tiny model with a chat template, `[user] ... [end][assistant] ...`."""
    from sahub.engine.model import wrap_model

    talking = copy.deepcopy(tokenizer)
    talking.chat_template = (
        "{{ bos_token }}{% for m in messages %}[{{ m['role'] }}] {{ m['content'] }} [end]{% endfor %}"
        "{% if add_generation_prompt %}[assistant] {% endif %}"
    )
    return wrap_model(make_model(), talking, name="chat")
