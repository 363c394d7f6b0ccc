"""Files that are written whole or not at all."""

import csv
import hashlib
import io
import json
import math
import os
from collections.abc import Iterable, Mapping
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from sahub.errors import DataError, MissingFiles, NewerFormat

SEAL = "seal"
ERROR_FILE = "error.txt"  # of a cell that failed: why


def cache_folder(cache_dir: str | os.PathLike[str] | None = None) -> Path:
    """Where finished work is kept: `cache_dir`, else `$XDG_CACHE_HOME/sahub`, else `~/.cache/sahub`."""
    usual = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "sahub"
    return Path(cache_dir).expanduser() if cache_dir else usual


def write_text(path: str | os.PathLike[str], text: str) -> Path:
    """Replace the file at `path` by `text`, as `write_bytes` does.

    Lone surrogates, which UTF-8 cannot hold, are written as the six characters of their escape.
    """
    return write_bytes(path, text.encode("utf-8", "backslashreplace"))


def write_bytes(path: str | os.PathLike[str], content: bytes) -> Path:
    """Replace the file at `path`: a reader, or a crash at any moment, finds the old file or the new one.

    Raises OSError with the name of the file.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In the same folder, because a rename is atomic only within one file system.
    draft = target.parent / f".draft-{uuid4().hex}"
    try:
        with draft.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(target)
    except OSError as error:  # a full disk does not say of which file
        raise OSError(error.errno, error.strerror or str(error), os.fspath(target)) from error
    finally:
        draft.unlink(missing_ok=True)
    return target


def write_json(path: str | os.PathLike[str], value: Any) -> Path:
    """Write one JSON document: sorted keys, shortest exact floats. Raises DataError for NaN and infinity."""
    return write_text(path, json.dumps(_plain(value, Path(path).name), indent=2, **_JSON) + "\n")


def write_jsonl(path: str | os.PathLike[str], rows: Iterable[Any]) -> Path:
    """Write one JSON document per line. Raises DataError for NaN or infinity."""
    name = Path(path).name
    lines = (json.dumps(_plain(row, f"{name}[{i}]"), **_JSON) for i, row in enumerate(rows))
    return write_text(path, "".join(f"{line}\n" for line in lines))


def write_csv(path: str | os.PathLike[str], rows: Iterable[Mapping[str, Any]], columns: Iterable[str] = ()) -> Path:
    """Write a table: `columns` first, then every other key in order of appearance; None is an empty cell.

    Text keeps its line breaks (quoted); lists and mappings are written as JSON. Raises DataError for NaN or infinity.
    """
    name = Path(path).name
    plain = [_plain(row, f"{name}[{i}]") for i, row in enumerate(rows)]
    header = list(dict.fromkeys([*columns, *(key for row in plain for key in row)]))
    text = io.StringIO()
    writer = csv.DictWriter(text, header, lineterminator="\n")
    writer.writeheader()
    for row in plain:
        writer.writerow({key: _cell(value) for key, value in row.items()})
    return write_text(path, text.getvalue())


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read one JSON document. Raises MissingFiles where there is no file, DataError where it is not JSON."""
    try:
        return json.loads(Path(path).read_text("utf-8"))
    except FileNotFoundError:
        raise MissingFiles(f"{path}: no such file") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{path}: not a JSON document: {error}") from None


def write_sealed(path: str | os.PathLike[str], content: Mapping[str, Any]) -> Path:
    """Write one JSON object with a checksum of itself. Raises DataError for NaN and infinity."""
    plain = _plain(content, Path(path).name)
    return write_json(path, {**plain, SEAL: _checksum(plain)})


def read_sealed(path: str | os.PathLike[str], form: int) -> dict[str, Any] | None:
    """What was sealed with this `format`, None of an older one.

    Raises MissingFiles without a file, NewerFormat for a newer format, DataError for anything but what was written.
    """
    content = read_json(path)
    written = content.get("format") if isinstance(content, dict) else None
    if not isinstance(written, int):
        raise DataError(f"{path}: a damaged entry")
    if written > form:
        raise NewerFormat(f"{path}: written by a newer sahub (format {written})")
    if written == form and content.pop(SEAL, None) != _checksum(content):
        raise DataError(f"{path}: a damaged entry")
    return content if written == form else None


def _checksum(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


_JSON: dict[str, Any] = {"sort_keys": True, "ensure_ascii": False, "allow_nan": False}


def _cell(value: Any) -> Any:
    if isinstance(value, list | dict):
        return json.dumps(value, **_JSON)
    return repr(value) if isinstance(value, float) else value


def _plain(value: Any, address: str) -> Any:
    """The value in JSON's own types; `address` names it in errors."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        if not math.isfinite(value):
            raise DataError(f"{address}={value}: must be a finite number")
        return float(value)
    if is_dataclass(value) and not isinstance(value, type):
        value = {field.name: getattr(value, field.name) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{address}.{key}") for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{address}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if hasattr(value, "tolist"):  # numbers and arrays of numpy and torch, which this layer does not import
        return _plain(value.tolist(), address)
    raise DataError(f"{address}: a {type(value).__name__} cannot be written as JSON")
