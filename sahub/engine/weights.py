"""Where weights and data are, and what to do when they are not here. No torch, no network."""

import hashlib
import logging
from dataclasses import fields
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from sahub.config.cell import Cell
from sahub.data import loading
from sahub.data.examples import TaskSpec
from sahub.errors import ConfigError, MissingFiles, SahubError
from sahub.files.atomic import cache_folder, read_json, write_json
from sahub.files.package import ROOT

log = logging.getLogger(__name__)
EMBEDDED = ROOT / "embedded"


def locate(path: str | None) -> str:
    """The packaged model for None or `embedded`, else the path or repository name as given."""
    return str(EMBEDDED) if path in (None, "", "embedded") else str(path)


def missing(path: str | None, revision: str | None = None) -> str | None:
    """What has to be fetched before the model can be loaded, with the command; None when nothing. No network.

    Raises ConfigError for a folder that does not exist or holds no model.
    """
    where = locate(path)
    folder = Path(where).expanduser()
    if folder.is_dir():
        if not (folder / "config.json").is_file():
            raise ConfigError(f"model.path={path}: this folder has no config.json, so it is not a transformers model")
        return None
    if where.startswith((".", "/", "~")) or where.count("/") != 1:
        raise ConfigError(f"model.path={path}: no such folder; give a folder or the name of a repository, org/name")
    names = ("config.json", "model.safetensors", "model.safetensors.index.json")
    held = {name: isinstance(try_to_load_from_cache(where, name, revision=revision), str) for name in names}
    if held["config.json"] and (held["model.safetensors"] or held["model.safetensors.index.json"]):
        return None
    at = f" --revision {revision}" if revision else ""
    return f"weights of {where} are not on this machine; fetch them: hf download {where}{at}"


def files_of(path: str | None, revision: str | None = None) -> list[Path]:
    """The files on this machine that decide what a model says: weights, configurations, tokenizer."""
    folder = Path(locate(path)).expanduser()
    if not folder.is_dir():
        config = try_to_load_from_cache(locate(path), "config.json", revision=revision)
        folder = Path(config).parent if isinstance(config, str) else folder
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
