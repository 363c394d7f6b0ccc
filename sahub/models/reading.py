"""A model's configuration and tokenizer, from a folder, a GGUF file or the local cache, without its weights."""

from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, PretrainedConfig

from sahub.errors import ConfigError, MissingFiles
from sahub.models import checkpoint, damage, gguf
from sahub.models.weights import files_of, locate, missing, pointed


def read_config(name_or_path: str | None, revision: str | None, trust_remote_code: bool) -> PretrainedConfig:
    """A model's configuration without its weights. Raises MissingFiles and ConfigError."""
    lacking = missing(name_or_path, revision)
    if lacking:
        raise MissingFiles(lacking)
    where, at = pointed(name_or_path)
    if at:
        return gguf.read_config(Path(locate(name_or_path)))
    common = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    files = files_of(name_or_path, revision)
    if wrong := damage.in_config(files):
        raise ConfigError(f"model.path={where}: {wrong}")
    try:
        return AutoConfig.from_pretrained(where, revision=revision, **common)
    except Exception as error:
        wrong = damage.in_files(files, error) or f"cannot be read as a transformers model: {checkpoint.said(error)}"
        raise ConfigError(f"model.path={where}: {wrong}") from error


def load_tokenizer(name_or_path: str | None, revision: str | None, trust_remote_code: bool) -> Any:
    """A model's tokenizer, without its weights. Raises ConfigError."""
    where, at = pointed(name_or_path)
    common = {"revision": revision, "trust_remote_code": trust_remote_code, "local_files_only": True}
    try:
        tokenizer = AutoTokenizer.from_pretrained(where, **common, **at)
        return gguf.completed(tokenizer, Path(locate(name_or_path))) if at else tokenizer
    except Exception as error:
        wrong = damage.in_files(files_of(name_or_path, revision), error)
        wrong = wrong or f"its tokenizer cannot be loaded: {checkpoint.said(error)}"
        raise ConfigError(f"model.path={locate(name_or_path)}: {wrong}") from error
