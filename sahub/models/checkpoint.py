"""Weights as they are loaded: the files must hold what the model needs, no more and no less, or be named."""

from collections.abc import Iterable, Mapping
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from io import StringIO
from pathlib import Path
from typing import Any

from transformers import GgufConfig, PretrainedConfig, PreTrainedModel
from transformers.utils import logging as transformers_logging

from sahub.errors import ConfigError, SahubError
from sahub.models import damage
from sahub.models.supported import auto_class

SHOWN = 4  # names of a kind
# How the parts of wrappers begin that read no text.
TOWERS = ("vision", "visual", "image", "audio", "speech", "multi_modal", "multimodal", "mm_")


def load(where: str, **settings: Any) -> tuple[PreTrainedModel, Mapping[str, Any]]:
    """transformers' causal language model of a folder or repository, and what was missing or left over.

    transformers makes up what is missing, at random, and says so in a warning; `check` makes an error of it. Raises
    whatever transformers raises.
    """
    quiet: AbstractContextManager[Any] = nullcontext()
    if "gguf_file" in settings:
        settings["quantization_config"] = GgufConfig(dequantize=True)
        quiet = redirect_stderr(StringIO())  # its reader draws a bar that no setting takes away
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()
    try:
        with quiet:
            hf, found = auto_class(settings["config"]).from_pretrained(
                where, output_loading_info=True, ignore_mismatched_sizes=True, **settings
            )
    finally:
        transformers_logging.set_verbosity(before)
    return hf, found


def check(where: str, config: PretrainedConfig, found: Mapping[str, Any]) -> None:
    """Raise ConfigError, naming them, for weights that were missing, left over or of another shape.

    What transformers declares of an architecture (tied weights, what it ignores on loading) is in neither list. The
    files of a wrapper around a text model hold its towers and projectors too: those are left over rightly.
    """
    is_wrapper = config.get_text_config() is not config
    left = [name for name in found["unexpected_keys"] if not (is_wrapper and _is_of_a_tower(name))]
    shapes = [f"{name} ({_shape(file)}, not {_shape(model)})" for name, file, model in found["mismatched_keys"]]
    kinds = {"not in the files": found["missing_keys"], "left over": left, "of another shape": shapes}
    parts = [f"{kind}: {_listed(names)}" for kind, names in kinds.items() if names]
    if not parts:
        return
    advice = "; tie_word_embeddings=true would share the embedding" if "lm_head.weight" in found["missing_keys"] else ""
    raise ConfigError(
        f"model.path={where}: its weights are not those that its configuration asks for: {'; '.join(parts)}{advice}"
    )


def explained(
    error: Exception, where: str, files: list[Path], config: PretrainedConfig, attn_implementation: str
) -> SahubError:
    """Why a model could not be loaded, with the key, library or file that it depends on."""
    first = first_line(error)
    if isinstance(error, ImportError) and "flash" in attn_implementation:
        extra = "install the extra: pip install 'sahub[flash-attn]'"
        return ConfigError(f"model.attn_implementation={attn_implementation}: {first}; {extra}")
    if method := quantised_by(config):
        return ConfigError(f"model.path={where}: its weights are quantised by {method}: {first}")
    return ConfigError(f"model.path={where}: {damage.in_files(files, error) or f'could not be loaded: {said(error)}'}")


def quantised_by(config: PretrainedConfig) -> str | None:
    """The method that a configuration says its weights are quantised by."""
    declared = getattr(config, "quantization_config", None)
    if not declared:
        return None
    method = declared.get("quant_method") if isinstance(declared, Mapping) else getattr(declared, "quant_method", None)
    return str(getattr(method, "value", method) or "an unnamed method")


def said(error: BaseException) -> str:
    """The kind of an error, and its first line."""
    return f"{type(error).__name__}: {first_line(error)}"


def first_line(error: BaseException) -> str:
    """The first line that an error says, or all of it where that is only a headline."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    return " ".join(lines)[:300] if lines[0].endswith(":") else lines[0]


def _is_of_a_tower(name: str) -> bool:
    return any(part.startswith(TOWERS) for part in name.split("."))


def _listed(names: Iterable[str]) -> str:
    known = sorted(names)
    more = f", and {len(known) - SHOWN} more" if len(known) > SHOWN else ""
    return ", ".join(known[:SHOWN]) + more


def _shape(size: Iterable[int]) -> str:
    return "x".join(map(str, size)) or "a number"
