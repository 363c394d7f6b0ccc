"""Finished work on disk: one JSON file per key, so that running a search again continues it.

A key names everything that determines a result, so a stale entry is never found, only never asked for again.
"""

import hashlib
import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

from sahub.errors import DataError, NewerFormat, SahubError
from sahub.files.atomic import cache_folder, read_sealed, write_sealed
from sahub.files.package import ROOT
from sahub.files.shapes import ANYTHING, fits

log = logging.getLogger(__name__)
FORMAT = 2

# The rooms of the package that decide a number of an answer, and those that decide what is run, shown or stored.
NUMERIC = (
    "attention", "builders", "compiled", "data", "embedded", "engine", "fidelities", "hashes", "index", "measures",
    "methods", "models", "scores", "tasks", "texts",
)  # fmt: skip
OTHER = (
    "bench", "calibration", "cli", "compute", "conf", "config", "doctor", "files", "report", "results", "run", "search",
    "stats", "timing", "trackers", "training",
)  # fmt: skip


class Journal:
    """Entries under `folder`. Several runs may share it: entries are written whole, and equal keys mean equal values.

    `force`: entries are not read, only written.
    """

    def __init__(self, folder: str | os.PathLike[str] | None = None, *, force: bool = False) -> None:
        self.folder = cache_folder(folder) / "journal"
        self.force = force
        self._told: set[str] = set()

    def get(self, key: Mapping[str, Any], shape: Any = ANYTHING) -> Any | None:
        """The value of a key, None where there is none; `shape` is what it must fit.

        An entry that cannot be read, is of another key or of another shape is named once and left out.
        """
        file = self._file(key)
        if self.force or not file.is_file():
            return None
        try:
            entry = read_sealed(file, FORMAT)
            if entry is not None and (_name(entry.get("key")) != file.stem or not fits(entry, {"value": shape})):
                raise DataError("another shape")
        except NewerFormat as error:
            self._tell(f"{error}; not used")
        except (SahubError, OSError) as error:
            self._tell(f"{file}: a damaged entry ({type(error).__name__}); its work is done again")
        else:
            return None if entry is None else entry["value"]
        return None

    def put(self, key: Mapping[str, Any], value: Any) -> None:
        """Keep a value. Where that fails, the run goes on without, and says so once; so does a value with NaN."""
        try:
            write_sealed(self._file(key), {"format": FORMAT, "key": key, "value": value})
        except OSError as error:
            self._tell(f"{self.folder}: nothing can be kept there ({error.strerror}); work is not resumable")
        except DataError:
            log.debug("not kept: %s", key)

    def newest(self, most: int, shape: Any = dict) -> Iterator[dict[str, Any]]:
        """Key and value of the entries that were written last, as far as they can be read and fit a shape."""
        files = sorted(self.folder.glob("*/*.json"), key=lambda file: -file.stat().st_mtime_ns)
        for file in files[:most]:
            with suppress(OSError, SahubError):
                entry = read_sealed(file, FORMAT)
                if fits(entry, shape):
                    yield cast(dict[str, Any], entry)

    def _file(self, key: Mapping[str, Any]) -> Path:
        name = _name(key)
        return self.folder / name[:2] / f"{name}.json"

    def _tell(self, message: str) -> None:
        what = message.partition(":")[0] if "nothing can be kept" in message else message
        if what not in self._told:
            self._told.add(what)
            log.warning("cache: %s", message)


def _name(key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()


@cache
def numbers_version() -> str:
    """A hash of the source of every room that can move a number: other code, other keys."""
    digest = hashlib.sha256()
    for room in NUMERIC:
        for file in sorted((ROOT / room).rglob("*.py")):
            digest.update(file.relative_to(ROOT).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()[:16]
