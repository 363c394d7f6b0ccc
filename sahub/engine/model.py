"""Load a causal LM once, check that sparse attention can be attached to it, and turn prompts into tokens."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from transformers import AutoConfig, AutoTokenizer, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sahub.attention.call import Geometry
from sahub.engine.probe import probe
from sahub.engine.rope import check_fixable
from sahub.engine.supported import auto_class, check_supported, geometry, reads_at_most, wide_window
from sahub.engine.weights import locate, missing
from sahub.errors import ConfigError, MissingFiles

log = logging.getLogger(__name__)

# Stands between context and question while a chat template is rendered, to find where the context ends.
_SPLIT = "<|context-ends-here|>"


@dataclass
class Counters:
    """Receipts of expensive work: what was loaded, prefilled and generated."""

    loads: int = 0
    contexts: int = 0  # different ones
    prefills: int = 0
    prefill_tokens: int = 0
    generated_tokens: int = 0
    computed: int = 0  # contexts x stacks
    served: int = 0  # the same, from earlier runs


@dataclass
class Model:
    """A loaded model with its tokenizer and what the engine needs to know about it."""

    name: str
    hf: PreTrainedModel
    tokenizer: Any
    geometry: Geometry
    max_context_length: int  # tokens
    stop_ids: frozenset[int]
    template: bool  # whether prompts go through the tokenizer's chat template
    counters: Counters = field(default_factory=Counters)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return torch.device(self.hf.get_input_embeddings().weight.device)

    def templated(self, template: str) -> "Model":
        """The same loaded model with prompts through its chat template (`auto`, where it has one) or without."""
        return replace(self, template=template == "auto" and bool(getattr(self.tokenizer, "chat_template", None)))

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        return ids

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens."""
        return len(self.encode(text))

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def wrap(self, context: str) -> tuple[str, str]:
        """What the model reads before a question and between question and answer prefix.

        With a chat template: one user message, split where the context ends. Without: the text itself and a newline.
        """
        if not self.template:
            return context, "\n"
        turn = [{"role": "user", "content": context + _SPLIT}]
        rendered = self.tokenizer.apply_chat_template(
            turn, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        before, _, after = rendered.rpartition(_SPLIT)
        return before, after

    def context_ids(self, context: str) -> list[int]:
        """Ids of the context as the start of a prompt: a template brings its first token, plain text gets one BOS."""
        ids = self.encode(self.wrap(context)[0])
        bos = self.tokenizer.bos_token_id
        return ids if self.template or bos is None else [bos, *ids]

    def question_ids(self, question: str, answer_prefix: str) -> list[int]:
        """Ids from the end of the context to the start of the answer: tokenised apart, no special tokens added."""
        return self.encode(question + self.wrap("")[1] + answer_prefix)

    @property
    def overhead_tokens(self) -> int:
        """Tokens that the template or BOS add to context and question."""
        plain = 0 if self.template else self.count_tokens("\n")
        return len(self.context_ids("")) + self.count_tokens(self.wrap("")[1]) - plain


def load_model(
    name_or_path: str | None = "embedded",
    *,
    name: str | None = None,
    revision: str | None = None,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | Mapping[str, Any] | None = None,
    attn_implementation: str = "auto",
    trust_remote_code: bool = False,
    max_context_length: int | None = None,
    template: str = "auto",
) -> Model:
    """Load a model from a folder or the local cache, never from the network.

    `device` auto: the first GPU, else the CPU. `dtype` auto: fp32 on the CPU, the stored one on a GPU. `template` auto
    (use the tokenizer's chat template where it has one) or none.

    Raises MissingFiles, ConfigError and UnsupportedModel.
    """
    config = read_config(name_or_path, revision, trust_remote_code)
    where = locate(name_or_path)
    common = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": True}
    check_supported(config, where)
    target = _device(device)
    transformers_logging.disable_progress_bar()  # ours is the one that is shown
    settings: dict[str, Any] = {"device_map": device_map} if device_map else {}
    if attn_implementation != "auto":
        settings["attn_implementation"] = attn_implementation
    try:
        hf = auto_class(config).from_pretrained(where, config=config, dtype=_dtype(dtype, target), **common, **settings)
        tokenizer = AutoTokenizer.from_pretrained(where, **common)
        hf = hf if device_map else hf.to(target)
    except ImportError as error:
        extra = "; install the extra: pip install 'sahub[flash-attn]'" if "flash" in attn_implementation else ""
        raise ConfigError(f"model.attn_implementation={attn_implementation}: {_first_line(error)}{extra}") from error
    except Exception as error:
        raise ConfigError(f"model.path={where}: could not be loaded: {_said(error)}") from error
    return wrap_model(
        hf.eval(), tokenizer, name=name or str(name_or_path), max_context_length=max_context_length, template=template
    )


def read_config(name_or_path: str | None, revision: str | None, trust_remote_code: bool) -> PretrainedConfig:
    """A model's configuration without its weights. Raises MissingFiles and ConfigError."""
    lacking = missing(name_or_path, revision)
    if lacking:
        raise MissingFiles(lacking)
    where, common = locate(name_or_path), {"trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        return AutoConfig.from_pretrained(where, revision=revision, **common)
    except Exception as error:
        raise ConfigError(f"model.path={where}: cannot be read as a transformers model: {_said(error)}") from error


def wrap_model(
    hf: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str = "model",
    max_context_length: int | None = None,
    template: str = "auto",
) -> Model:
    """A Model around a transformers model and tokenizer that are already loaded."""
    config = hf.config
    check_supported(config, name)
    check_fixable(hf)
    probe(hf)
    window = wide_window(config)
    if window and max_context_length and max_context_length > window:
        raise ConfigError(
            f"model.max_context_length={max_context_length}: must be at most {window}, the model's sliding window: "
            "no layer attends further"
        )
    limit = max_context_length or reads_at_most(config) or 2**31
    return Model(
        name=name,
        hf=hf,
        tokenizer=tokenizer,
        geometry=geometry(config),
        max_context_length=int(limit),
        stop_ids=_stop_ids(hf, tokenizer),
        template=False,
        counters=Counters(loads=1),
    ).templated(template)


def _stop_ids(hf: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    declared = getattr(hf.generation_config, "eos_token_id", None)
    ids = [declared] if isinstance(declared, int) else list(declared or [])
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def _device(name: str) -> str:
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(name.split(":")[0], True):
        raise ConfigError(f"model.device={name}: torch {torch.__version__} finds no such device here; use auto or cpu")
    return name


def _dtype(name: str, device: str) -> Any:
    if name == "auto":
        return torch.float32 if device == "cpu" else "auto"
    kind = getattr(torch, name, None)
    if not isinstance(kind, torch.dtype) or not kind.is_floating_point:
        raise ConfigError(f"model.dtype={name}: must be auto, float32, bfloat16 or float16")
    return kind


def _said(error: BaseException) -> str:
    return f"{type(error).__name__}: {_first_line(error)}"


def _first_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines)[:300] if lines[0].endswith(":") else lines[0]
