"""Load a causal LM once, check that sparse attention can be attached to it, and turn prompts into tokens."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from transformers import PreTrainedModel
from transformers.utils import logging as transformers_logging

from sahub.attention.call import Geometry
from sahub.config.group_schemas import Protocol
from sahub.engine.probe import probe
from sahub.errors import ConfigError
from sahub.models import checkpoint, gguf
from sahub.models.packed import pack
from sahub.models.reading import load_tokenizer, read_config
from sahub.models.rope import check_fixable
from sahub.models.supported import check_supported, geometry, reads_at_most, wide_window
from sahub.models.template import Template
from sahub.models.weights import files_of, locate, pointed

log = logging.getLogger(__name__)


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
    template: Template | None  # what prompts go through; None: text alone
    stored: str | None = None  # how its file holds the weights, where that is not how they are run
    counters: Counters = field(default_factory=Counters)

    @property
    def device(self) -> torch.device:
        """Where token ids go."""
        return torch.device(self.hf.get_input_embeddings().weight.device)

    @property
    def doubt(self) -> str | None:
        """What is to be said before its answers are read; None: nothing."""
        doubt = self.template.doubt if self.template else None
        return f"model={self.name} protocol.thinking=off: {doubt}" if doubt else None

    def templated(self, template: str, date: str = Protocol.date, thinking: str = Protocol.thinking) -> "Model":
        """The same loaded model with prompts through its chat template (`auto`, where it has one) or without.

        Raises ConfigError for a template that does not let a user's turn through, or whose tokens have no embedding.
        """
        used = None
        if template == "auto" and getattr(self.tokenizer, "chat_template", None):
            used = Template(tokenizer=self.tokenizer, name=self.name, date=date, thinking=thinking == "on")
            used.check()
        model = replace(self, template=used)
        model.question_ids("", "")
        model.context_ids("")
        return model

    def encode(self, text: str) -> list[int]:
        """Token ids without special tokens. Raises ConfigError for a token that the model has no embedding for."""
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False)
        held = self.hf.get_input_embeddings().weight.shape[0]
        if ids and max(ids) >= held:
            token = self.tokenizer.convert_ids_to_tokens(max(ids))
            raise ConfigError(
                f"model={self.name}: its tokenizer gives the token {max(ids)} ({token}), and the model has embeddings "
                f"for {held:,}: tokenizer and weights do not belong together"
            )
        return ids

    def count_tokens(self, text: str) -> int:
        """Length of a text in tokens."""
        return len(self.encode(text))

    def decode(self, ids: list[int]) -> str:
        """Text of generated ids, special tokens left out."""
        return str(self.tokenizer.decode(ids, skip_special_tokens=True))

    def context_ids(self, context: str) -> list[int]:
        """Ids of the context as the start of a prompt: a template brings its first token, plain text gets one BOS."""
        if self.template:
            return self.encode(self.template.before(context))
        bos = self.tokenizer.bos_token_id
        return [*([] if bos is None else [bos]), *self.encode(context)]

    def question_ids(self, question: str, answer_prefix: str) -> list[int]:
        """Ids from the end of the context to the start of the answer: tokenised apart, no special tokens added.

        Without a template a line break stands before the answer.
        """
        after = self.template.after(question) if self.template else f"{question}\n"
        return self.encode(after + answer_prefix)

    @property
    def overhead_tokens(self) -> int:
        """Tokens that the template or BOS add to context and question."""
        return len(self.context_ids("")) + (len(self.question_ids("", "")) if self.template else 0)


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
    date: str = Protocol.date,
    thinking: str = Protocol.thinking,
    packed: bool = True,
) -> Model:
    """Load a model from a folder or the local cache, never from the network.

    `device` auto: the first GPU, else the CPU. `dtype` auto: fp32 on the CPU, the stored one on a GPU. `template` auto
    (use the tokenizer's chat template where it has one) or none; `date` and `thinking` as in conf/protocol. `packed`
    False: linear layers keep their weights as they are stored, for who saves, copies or trains `hf`; on a CPU with
    AVX-512 they are slower then.

    Raises MissingFiles, ConfigError and UnsupportedModel.
    """
    config = read_config(name_or_path, revision, trust_remote_code)
    where, at = pointed(name_or_path)
    common = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": True}
    check_supported(config, locate(name_or_path))
    target = device_of(device)
    transformers_logging.disable_progress_bar()  # ours is the one that is shown
    settings: dict[str, Any] = {"device_map": device_map} if device_map else {}
    if attn_implementation != "auto":
        settings["attn_implementation"] = attn_implementation
    tokenizer = load_tokenizer(name_or_path, revision, trust_remote_code)
    kind = _dtype(dtype, target)
    try:
        hf, found = checkpoint.load(where, config=config, dtype=kind, **common, **at, **settings)
        hf = hf if device_map else hf.to(target)
    except Exception as error:
        files = files_of(name_or_path, revision)
        raise checkpoint.explained(error, locate(name_or_path), files, config, attn_implementation) from error
    checkpoint.check(locate(name_or_path), config, found)
    hf = gguf.scaled(hf, Path(locate(name_or_path))) if at else hf
    model = wrap_model(
        hf.eval(),
        tokenizer,
        name=name or str(name_or_path),
        max_context_length=max_context_length,
        template=template,
        date=date,
        thinking=thinking,
        stored=gguf.stored(Path(locate(name_or_path))) if at else None,
    )
    if packed and torch.device(target).type == "cpu" and not device_map:
        pack(hf)
    return model


def wrap_model(
    hf: PreTrainedModel,
    tokenizer: Any,
    *,
    name: str = "model",
    max_context_length: int | None = None,
    template: str = "auto",
    date: str = Protocol.date,
    thinking: str = Protocol.thinking,
    stored: str | None = None,
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
        template=None,
        stored=stored,
        counters=Counters(loads=1),
    ).templated(template, date, thinking)


def _stop_ids(hf: PreTrainedModel, tokenizer: Any) -> frozenset[int]:
    declared = getattr(hf.generation_config, "eos_token_id", None)
    ids = [declared] if isinstance(declared, int) else list(declared or [])
    return frozenset(i for i in [*ids, tokenizer.eos_token_id] if i is not None)


def device_of(name: str) -> str:
    """The device that `model.device` names. Raises ConfigError for one that is not here."""
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
