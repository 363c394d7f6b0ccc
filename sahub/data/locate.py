"""Rows of a benchmark's data: a local folder or file, or what the Hugging Face caches hold.

A missing network costs no time: files are looked for on this machine first, and nothing is fetched unless
SAHUB_DOWNLOAD=1 is set, HF_HUB_OFFLINE and HF_DATASETS_OFFLINE are not, and the host answers within seconds.
"""

import os
import re
from collections.abc import Iterator, Sequence
from fnmatch import fnmatch
from pathlib import Path

from huggingface_hub import constants

from sahub.data.cells import Row
from sahub.data.examples import TaskSpec
from sahub.data.rows import KINDS, Columns, kind_of, of_split, rows_of, stem_of
from sahub.errors import ConfigError, DataError, MissingFiles

CONNECT_SECONDS = 3.0


def missing(spec: TaskSpec) -> str | None:
    """What is not on this machine and how to get it, in a few lines; None when files are there or may be fetched."""
    if _find(spec) or (spec.path is None and _may_download()):
        return None
    return _advice(spec)


def read_rows(spec: TaskSpec, *layouts: Columns, optional: Columns = (), alone: bool = False) -> Iterator[Row]:
    """Every row of the task, with the columns of one of `layouts` and those of `optional` that are there.

    Files may hold several tasks: with `where`, the rows that have its value in its column; else those whose `task`
    column, where there is one, names this one. It must be there where neither folder nor file is named after the task,
    and is not looked at in the folder of the configuration, or where the benchmark is one task `alone`.

    Raises MissingFiles where there are no files, DataError where they lack a column or hold no row of the task.
    """
    files = _find(spec)
    if not files and spec.path is None and _may_download():
        _download(spec)
        files = _find(spec)
    if not files:
        raise MissingFiles(_advice(spec))
    column, names = next(iter(spec.where), "task"), [*spec.where.values()] or [spec.subset, spec.folder]
    count, others = 0, set()
    for file in files:
        needed = () if alone or (_is_named(spec, file) and not spec.where) else (column,)
        trusted = alone or (not spec.where and file.parent.name == spec.folder)  # the dataset's own folder
        read = dict.fromkeys([*(name for layout in layouts for name in layout), *optional, column])
        check = _Needed(layouts, needed)
        for values, address in rows_of(file, list(read), check, _members(spec)):
            task = values.get(column)
            if trusted or (column not in values and not spec.where) or task in names:
                count += 1
                yield Row(values, address, check.layout)
            else:
                others.add(str(task)[:80])
    if count == 0:
        held = f"; their {column}: {', '.join(sorted(others)[:20])}" if others else ""
        raise DataError(f"task={spec.name}: {files[0].parent}: no row of {names[0]} in {len(files)} file(s){held}")


class _Needed:
    """Which layout the columns of a file are of: the first of which it has all, and `also`, in every row."""

    def __init__(self, layouts: Sequence[Columns], also: Columns) -> None:
        self.layout: Columns = ()
        self._layouts, self._also = list(layouts), also

    def __call__(self, names: Columns, address: str) -> None:
        lacking = [[name for name in dict.fromkeys([*one, *self._also]) if name not in names] for one in self._layouts]
        absent = min(lacking, key=len)
        self.layout = self._layouts[lacking.index(absent)]
        self._layouts = [self.layout]  # a file is of one
        if absent:
            raise DataError(
                f"{address}: missing column{'s' if len(absent) > 1 else ''} {', '.join(absent)}; "
                f"it has {', '.join(names) or 'none'}"
            )


def _is_named(spec: TaskSpec, file: Path) -> bool:
    """Whether the place of a file says that it holds the task."""
    given = spec.path is not None and file == Path(spec.path).expanduser()
    names = (spec.subset, spec.folder)
    return given or stem_of(file) in names or file.parent.name in names or file.suffix in (".arrow", ".zip")


def _members(spec: TaskSpec) -> list[str]:
    """Names of the file inside a zip, best first."""
    return [f"{spec.folder}/{spec.split}", spec.folder, spec.split]


def _find(spec: TaskSpec) -> list[Path]:
    if spec.path is not None:
        root = Path(spec.path).expanduser()
        return [root] if root.is_file() else _in_folder(root, spec)
    if not spec.dataset:
        raise ConfigError(f"task={spec.name}: task.path and task.dataset are null: one of them must say where data are")
    return _in_hub_cache(spec, spec.dataset) or _in_datasets_cache(spec, spec.dataset)


def _in_folder(root: Path, spec: TaskSpec) -> list[Path]:
    names = dict.fromkeys((spec.folder, spec.subset))
    patterns = [spec.files] if spec.files else []
    patterns += [f"{name}/{inner}" for name in names for inner in (f"{spec.split}/*.arrow", "*")]  # save_to_disk
    patterns += [*(f"{name}.*" for name in names), "data/*", f"{spec.split}/*.arrow", "*"]
    for pattern in patterns:
        found = sorted(file for file in root.glob(pattern) if file.is_file())
        for kind in KINDS:
            if files := of_split([file for file in found if kind_of(file) == kind], spec.split):
                return files
    return []


def _in_hub_cache(spec: TaskSpec, dataset: str) -> list[Path]:
    """Files that `hf download` or an earlier run left: datasets--owner--name/snapshots/<commit>/."""
    repository = Path(constants.HF_HUB_CACHE) / f"datasets--{dataset.replace('/', '--')}"
    branch = repository / "refs" / (spec.revision or "main")
    commit = branch.read_text("utf-8").strip() if branch.is_file() else spec.revision
    root = repository / "snapshots" / commit if commit else None
    found = _in_folder(root, spec) if root else []
    # An earlier run may have fetched other tasks of the same repository: only what this one would fetch counts.
    return [file for file in found if root and fnmatch(file.relative_to(root).as_posix(), _wanted(spec))]


def _in_datasets_cache(spec: TaskSpec, dataset: str) -> list[Path]:
    """Arrow files of `datasets.load_dataset`: owner___name/<config>/<version>/<commit>/*-<split>*.arrow, the newest."""
    owner, _, name = dataset.rpartition("/")
    snake = re.sub(r"(?<=[a-z\d])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", name).lower()
    folder = os.path.expandvars(os.environ.get("HF_DATASETS_CACHE") or Path(constants.HF_HOME, "datasets"))
    root = Path(folder).expanduser() / (f"{owner}___{snake}" if owner else snake)
    pattern = f"*-{spec.split}*.arrow"
    found: list[Path] = []
    for config in (spec.folder, f"default-data_dir={spec.folder}"):
        folders = root.glob(f"{config}/*/{spec.revision or '*'}")
        found += [folder for folder in folders if any(folder.glob(pattern))]
    if not found:
        return []
    return sorted(max(found, key=lambda folder: folder.stat().st_mtime).glob(pattern))


def _wanted(spec: TaskSpec) -> str:
    """The files of the repository that hold the task."""
    return spec.files or f"{spec.folder}/*"


def _advice(spec: TaskSpec) -> str:
    if spec.path is not None:
        root = Path(spec.path).expanduser()
        if not root.exists():
            return f"task.path={spec.path}: no such folder or file"
        return (
            f"task.path={spec.path}: no data of {spec.subset}, split {spec.split}: must be a file, or hold "
            f"{_wanted(spec)}, {spec.subset}.jsonl, or *.parquet with a `task` column ({', '.join(KINDS)} are read)"
        )
    revision = f" --revision {spec.revision}" if spec.revision else ""
    at = f", revision {spec.revision}" if spec.revision else ""
    file = spec.files or f"{spec.folder}/{spec.split}-*.parquet"
    return (
        f"data of task {spec.name} are not on this machine: dataset {spec.dataset}, config {spec.folder}{at}\n"
        f"  expected: DIR/{file} in a folder of yours, or the dataset in the cache of the Hub\n"
        f"  hf download --repo-type dataset {spec.dataset} --include '{_wanted(spec)}'{revision} --local-dir DIR\n"
        f"  then add task.path=DIR (or set SAHUB_DOWNLOAD=1 to let a run fetch them)"
    )


def _may_download() -> bool:
    def is_on(name: str) -> bool:
        return os.environ.get(name, "").lower() in ("1", "true", "yes", "on")

    return is_on("SAHUB_DOWNLOAD") and not (constants.HF_HUB_OFFLINE or is_on("HF_DATASETS_OFFLINE"))


def _download(spec: TaskSpec) -> None:
    """Fetch the files of the task through the Hub's own session: its proxies, its endpoint, its cache."""
    from huggingface_hub import get_session, snapshot_download  # only files that need it pay for it

    try:
        get_session().head(constants.ENDPOINT, timeout=CONNECT_SECONDS)  # its own requests wait for minutes
    except Exception as error:  # noqa: BLE001 (of whichever library the session is)
        raise MissingFiles(f"{_advice(spec)}\n  SAHUB_DOWNLOAD is set, but {constants.ENDPOINT}: {error}") from None
    try:
        snapshot_download(spec.dataset or "", repo_type="dataset", revision=spec.revision, allow_patterns=_wanted(spec))
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingFiles(f"{_advice(spec)}\n  the download failed: {said}") from error
