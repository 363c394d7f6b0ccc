"""Rows of a benchmark's data files: a local folder, or what the Hugging Face caches hold.

A missing network costs no time: files are looked for on this machine first, and nothing is fetched unless
SAHUB_DOWNLOAD=1 is set, HF_HUB_OFFLINE and HF_DATASETS_OFFLINE are not, and the host answers within seconds.
"""

import json
import os
import re
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from sahub.errors import ConfigError, DataError, MissingFiles
from sahub.examples import TaskSpec

KINDS = ("parquet", "jsonl", "json")  # of the first kind found in a folder, all files are read
CONNECT_SECONDS = 3.0
BATCH_ROWS = 64

Check = Callable[[Sequence[str], str], None]  # raises where the column names found at an address lack one


def missing(spec: TaskSpec) -> str | None:
    """What is not on this machine and how to get it, in a few lines; None when files are there or may be fetched."""
    if _find(spec) or (spec.path is None and _may_download()):
        return None
    return _advice(spec)


def read_rows(spec: TaskSpec, columns: Sequence[str]) -> Iterator[dict[str, Any]]:
    """Every row of the task: a dict of `columns`, lists as Python lists; other columns are not read.

    Files may hold several tasks: rows whose `task` column names another are left out. Such a column must be there where
    neither folder nor file is named after the subset.

    Raises MissingFiles where there are no files, DataError where they lack a column or hold no row of the task.
    """
    files = _find(spec)
    if not files and spec.path is None and _may_download():
        _download(spec)
        files = _find(spec)
    if not files:
        raise MissingFiles(_advice(spec))
    count, others = 0, set()
    for file in files:
        given = spec.path is not None and file == Path(spec.path).expanduser()
        named = given or spec.subset in (file.stem, file.parent.name) or file.suffix == ".arrow"
        for row in _rows(file, columns, needs_task=not named):
            task = row.pop("task", None)
            if task is None or task == spec.subset:
                count += 1
                yield row
            else:
                others.add(str(task))
    if count == 0:
        held = f"; their tasks: {', '.join(sorted(others))}" if others else ""
        raise DataError(f"task={spec.name}: {files[0].parent}: no row of {spec.subset} in {len(files)} file(s){held}")


def _find(spec: TaskSpec) -> list[Path]:
    if spec.path is not None:
        root = Path(spec.path).expanduser()
        return [root] if root.is_file() else _in_folder(root, spec.subset)
    if not spec.dataset:
        raise ConfigError(f"task={spec.name}: task.path and task.dataset are null: one of them must say where data are")
    return _in_hub_cache(spec, spec.dataset) or _in_datasets_cache(spec, spec.dataset)


def _in_folder(root: Path, subset: str) -> list[Path]:
    for folder, stem in ((root / subset, "*"), (root, subset), (root, "*")):
        for kind in KINDS:
            if files := sorted(file for file in folder.glob(f"{stem}.{kind}") if file.is_file()):
                return files
    return []


def _cache(variable: str, folder: str) -> Path:
    """A cache folder, by the environment variables that huggingface_hub and datasets read."""
    home = os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return Path(os.environ.get(variable) or Path(home, folder)).expanduser()


def _in_hub_cache(spec: TaskSpec, dataset: str) -> list[Path]:
    """Files that `hf download` or an earlier run left: datasets--owner--name/snapshots/<commit>/."""
    repository = _cache("HF_HUB_CACHE", "hub") / f"datasets--{dataset.replace('/', '--')}"
    branch = repository / "refs" / (spec.revision or "main")
    commit = branch.read_text("utf-8").strip() if branch.is_file() else spec.revision
    return _in_folder(repository / "snapshots" / commit, spec.subset) if commit else []


def _in_datasets_cache(spec: TaskSpec, dataset: str) -> list[Path]:
    """Arrow files of `datasets.load_dataset`: owner___name/<config>/<version>/<commit>/*-test*.arrow, the newest."""
    owner, _, name = dataset.rpartition("/")
    snake = re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    root = _cache("HF_DATASETS_CACHE", "datasets") / (f"{owner}___{snake}" if owner else snake)
    found: list[Path] = []
    for config in (spec.subset, f"default-data_dir={spec.subset}"):
        folders = root.glob(f"{config}/*/{spec.revision or '*'}")
        found += [folder for folder in folders if any(folder.glob("*-test*.arrow"))]
    if not found:
        return []
    return sorted(max(found, key=lambda folder: folder.stat().st_mtime).glob("*-test*.arrow"))


def _advice(spec: TaskSpec) -> str:
    if spec.path is not None:
        root = Path(spec.path).expanduser()
        if not root.exists():
            return f"task.path={spec.path}: no such folder or file"
        return (
            f"task.path={spec.path}: no data of {spec.subset}: must be a file, or hold {spec.subset}/*.parquet, "
            f"{spec.subset}.jsonl, or *.parquet with a `task` column ({', '.join(KINDS)} are read)"
        )
    at = f" at revision {spec.revision}" if spec.revision else ""
    revision = f" --revision {spec.revision}" if spec.revision else ""
    return (
        f"data of task {spec.name} (dataset {spec.dataset}, config {spec.subset}{at}) are not on this machine:\n"
        f"  hf download --repo-type dataset {spec.dataset} --include '{spec.subset}/*'{revision} --local-dir DIR\n"
        f"  then add task.path=DIR (or set SAHUB_DOWNLOAD=1 to let a run fetch them)"
    )


def _may_download() -> bool:
    def is_on(name: str) -> bool:
        return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")

    return is_on("SAHUB_DOWNLOAD") and not (is_on("HF_HUB_OFFLINE") or is_on("HF_DATASETS_OFFLINE"))


def _download(spec: TaskSpec) -> None:
    endpoint = urlsplit(os.environ.get("HF_ENDPOINT") or "https://huggingface.co")
    host, port = endpoint.hostname or "", endpoint.port or (80 if endpoint.scheme == "http" else 443)
    try:
        socket.create_connection((host, port), timeout=CONNECT_SECONDS).close()
    except OSError as error:
        raise MissingFiles(f"{_advice(spec)}\n  SAHUB_DOWNLOAD is set, but {host}:{port}: {error}") from None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError

    try:
        snapshot_download(
            spec.dataset or "", repo_type="dataset", revision=spec.revision, allow_patterns=f"{spec.subset}/*"
        )
    except (HfHubHTTPError, OSError) as error:
        raise MissingFiles(f"{_advice(spec)}\n  the download failed: {str(error).splitlines()[0]}") from error


def _rows(file: Path, columns: Sequence[str], *, needs_task: bool) -> Iterator[dict[str, Any]]:
    """The rows of one file; `task` is added where the file has it."""
    required = [*columns, "task"] if needs_task else list(columns)

    def check(names: Sequence[str], address: str) -> None:
        if absent := [name for name in required if name not in names]:
            raise DataError(
                f"{address}: missing column{'s' if len(absent) > 1 else ''} {', '.join(absent)}; "
                f"it has {', '.join(names) or 'none'}"
            )

    if file.suffix in (".parquet", ".arrow"):
        yield from _table_rows(file, [*columns, "task"], check)
        return
    for row, address in _json_rows(file):
        check(list(row), address)
        yield {name: row[name] for name in (*columns, "task") if name in row}


def _table_rows(file: Path, columns: Sequence[str], check: Check) -> Iterator[dict[str, Any]]:
    import pyarrow

    try:
        for batch in _batches(file, columns, check):
            yield from batch.to_pylist()
    except pyarrow.ArrowException as error:
        raise DataError(f"{file}: not a {file.suffix[1:]} file: {error}") from None


def _batches(file: Path, columns: Sequence[str], check: Check) -> Iterator[Any]:
    """Record batches of few rows: long contexts repeat on every row, and only so many copies are in memory at once."""
    import pyarrow
    import pyarrow.parquet

    is_parquet = file.suffix == ".parquet"
    source = pyarrow.parquet.ParquetFile(file) if is_parquet else pyarrow.ipc.open_stream(pyarrow.memory_map(str(file)))
    with source:
        held = (source.schema_arrow if is_parquet else source.schema).names
        check(held, str(file))
        names = [name for name in columns if name in held]
        for batch in source.iter_batches(batch_size=BATCH_ROWS, columns=names) if is_parquet else source:
            for start in range(0, batch.num_rows, BATCH_ROWS):
                yield batch.slice(start, BATCH_ROWS).select(names)


def _json_rows(file: Path) -> Iterator[tuple[dict[str, Any], str]]:
    """Rows, with their addresses, of a JSON list or of a file with one JSON object per line."""
    with file.open(encoding="utf-8") as lines:
        first = next((line for line in lines if line.strip()), "")
        lines.seek(0)
        if first.lstrip().startswith("["):
            for index, row in enumerate(_json(lines.read(), str(file))):
                yield _object(row, f"{file}: row {index}")
            return
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield _object(_json(line, f"{file}:{number}"), f"{file}:{number}")


def _json(text: str, address: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError as error:
        raise DataError(f"{address}: not JSON: {error}") from None


def _object(row: Any, address: str) -> tuple[dict[str, Any], str]:
    if not isinstance(row, dict):
        raise DataError(f"{address}: a {type(row).__name__}: must be an object with the columns of a row")
    return row, address
