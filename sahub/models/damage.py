"""What is wrong with a model's files, where libraries say only that something is."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

SIZES = (
    "num_hidden_layers",
    "num_attention_heads",
    "num_key_value_heads",
    "hidden_size",
    "head_dim",
    "vocab_size",
    "max_position_embeddings",
)
INDEX = "model.safetensors.index.json"
AGAIN = "fetch it again"
_WORDS = {"tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "spiece.model", "tekken.json"}
_TYPED = re.compile(r"Field '(\w+)' expected (?!None)(\w+)")
_QUOTED = re.compile(r"""['"`]([^'"`]+)['"`]""")


def in_config(files: list[Path]) -> str | None:
    """A size in config.json that no model can have; None where all can be."""
    for name, value in _leaves(_json(files, "config.json") or {}):
        if name.removeprefix("text_config.") in SIZES and isinstance(value, int) and value < 1:
            return f"config.json: {name}={value}: must be at least 1"
    return None


def in_files(files: list[Path], error: Exception) -> str | None:
    """The file that is damaged or lacking, or the value that `error` quotes; None where none is found."""
    return _damaged(files) or _without_words(files, error) or _quoted(files, error)


def _damaged(files: list[Path]) -> str | None:
    for file in files:
        try:
            wrong = _wrong_in(file, {one.name for one in files})
        except SafetensorError as error:
            wrong = f"is torn ({error}, {file.stat().st_size} bytes)"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            wrong = f"is damaged ({str(error).splitlines()[0]})"
        if wrong:
            return f"{file.name}: {wrong}; {AGAIN}"
    return None


def _wrong_in(file: Path, names: set[str]) -> str | None:
    """What is wrong in a file beside those of `names`. Raises what reading it raises."""
    if file.suffix == ".safetensors":
        with safe_open(file, framework="np"):
            return None
    if file.suffix != ".json":
        return None
    held = json.loads(file.read_text(encoding="utf-8"))
    if not isinstance(held, dict) and file.name.startswith(("config", "tokenizer", "model")):
        return "holds no mapping"
    lost = set(held["weight_map"].values()) - names if file.name == INDEX else ()
    return f"names {min(lost)}, which is not here" if lost else None


def _without_words(files: list[Path], error: Exception) -> str | None:
    if "tokenizer" not in str(error) or any(file.name in _WORDS for file in files):
        return None
    return "this folder holds no tokenizer (tokenizer.json or tokenizer.model); copy that of the model it was made from"


def _quoted(files: list[Path], error: Exception) -> str | None:
    leaves = list(_leaves(_json(files, "config.json") or {}))
    for name, value in leaves:
        if (typed := _TYPED.search(str(error))) and name.rpartition(".")[2] == typed[1]:
            return f"config.json: {name}={value!r}: must be of type {typed[2]}"
    for said in _QUOTED.findall(str(error)):
        for name, value in leaves:
            if said == str(value):
                return f"config.json: {name}={value}: not known to transformers ({type(error).__name__})"
    return None


def _json(files: list[Path], name: str) -> Any:
    """What a file of that name holds; None where there is none that can be read."""
    file = next((file for file in files if file.name == name), None)
    try:
        return json.loads(file.read_text(encoding="utf-8")) if file else None
    except ValueError:
        return None


def _leaves(held: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Names and values of all that is no mapping."""
    if not isinstance(held, dict):
        yield name, held
        return
    for key, value in held.items():
        yield from _leaves(value, f"{name}.{key}" if name else str(key))
