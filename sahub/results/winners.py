"""Winners that searches leave in the cache, and how they are found again: for a task, or for all tasks at once."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sahub.config.cell import Cell
from sahub.errors import DataError, NewerFormat, SahubError
from sahub.files.atomic import cache_folder, read_sealed, write_sealed
from sahub.files.journal import numbers_version
from sahub.files.shapes import fits
from sahub.models.weights import digest_of_model, files_of
from sahub.results import best_file

log = logging.getLogger(__name__)
FORMAT = 2
FIGURES, SCORE = {"value": float, "density": float}, {"mean": float}
# What is read of an entry: whoever shares the cache may have written it.
SHAPE = {
    "key": {"task": (dict, None), "model": {"path": (str, None), "revision": (str, None), "files": (str, None)}},
    "best": {
        **dict.fromkeys(("model", "task", "builder", "objective"), str),
        "overrides": [str],
        "stage_overrides": [str],
        "figures": FIGURES,
        "mean_figures": (FIGURES, None),
        "tasks": [str],
        "n": int,
        "seed": int,
        "trials": {str: int},
        "versions": {str: str},
    },
    "when": str,
    "numbers": str,
    "validation": {str: {"n": int}},
}
GRADED = {"dense_score": SCORE, "sparse_score": SCORE}


@dataclass(frozen=True, kw_only=True)
class Winner:
    """What a search found: its best file, when, with which sahub, and what validation said of it, by task."""

    key: Mapping[str, Any]
    best: Mapping[str, Any]
    when: str  # ISO 8601, UTC
    numbers: str
    validation: Mapping[str, Any]

    @property
    def everywhere(self) -> bool:
        """Whether it is the winner of all tasks of a study together."""
        return self.key["task"] is None

    @property
    def figures(self) -> Mapping[str, Any]:
        """Its value and measures on the contexts of the search: means over tasks where it is of all of them."""
        figures: Mapping[str, Any] = self.best["mean_figures" if self.everywhere else "figures"]
        return figures

    @property
    def stale(self) -> bool:
        """Whether another version of the code that makes numbers found it."""
        return self.numbers != numbers_version()


def folder_of(cache_dir: str | Path | None) -> Path:
    """Where winners are kept."""
    return cache_folder(cache_dir) / "best"


def key_of(cell: Cell, *, everywhere: bool = False) -> dict[str, Any]:
    """What a winner is a winner of, its model aside. `everywhere`: of all tasks together.

    The builder counts with every value and range that was typed: a pinned field makes another search.
    """
    settings = cell.settings
    how = {"dtype": settings.model.dtype, "attn_implementation": settings.model.attn_implementation}
    key = {
        "task": None if everywhere else asdict(settings.task),
        "builder": {"name": cell.choices.builder, "tree": _digest(repr(cell.builder))},  # in order
        "objective": asdict(settings.objective),
        "protocol": {**asdict(settings.protocol), **how},
    }
    plain: dict[str, Any] = json.loads(json.dumps(key, default=str))
    return plain


def keep(cell: Cell, best: Mapping[str, Any], *, everywhere: bool = False) -> None:
    """Keep the best file of a search, in place of what an earlier one found. Where that fails, the log says so."""
    key = {**key_of(cell, everywhere=everywhere), "model": _model(cell)}
    now = datetime.now(UTC).isoformat(timespec="seconds")
    _write(cell, key, {"best": best, "when": now, "numbers": numbers_version(), "validation": {}})


def validated(cell: Cell, overrides: tuple[str, ...], figures: Mapping[str, Any]) -> None:
    """Add what validation found for the cell's task to the winners that have these stage overrides."""
    for winner in (find(cell), find(cell, everywhere=True)):
        if winner is not None and tuple(winner.best["stage_overrides"]) == overrides and not winner.stale:
            found = {name: getattr(winner, name) for name in ("best", "when", "numbers")}
            _write(cell, winner.key, {**found, "validation": {**winner.validation, cell.choices.task: figures}})


def find(cell: Cell, *, everywhere: bool = False) -> Winner | None:
    """The winner for the cell's model, task (or all tasks), builder, objective and protocol; the newest of several."""
    asked = _digest(key_of(cell, everywhere=everywhere))
    same = list(every(cell.settings.cache_dir, f"{asked}_*.json"))
    ours = _model(cell) if same else {}  # large weights are hashed the first time
    mine = [winner for winner in same if _is_same_model(ours, winner.key["model"])]
    return max(mine, key=lambda winner: winner.when, default=None)


def every(cache_dir: str | Path | None, names: str = "*.json") -> Iterator[Winner]:
    """All winners of a cache. An entry that cannot be read is named in the log and left out."""
    for file in sorted(folder_of(cache_dir).glob(names)):
        try:
            entry = read_sealed(file, FORMAT)
            found = None if entry is None else _winner(entry)
        except NewerFormat as error:
            log.warning("cache: %s; not used", error)
        except (SahubError, OSError) as error:
            log.warning("cache: %s: a damaged entry (%s); not used", file, type(error).__name__)
        else:
            if found is not None:
                yield found


def _winner(entry: Mapping[str, Any]) -> Winner:
    """The winner of an entry. Raises DataError for one of another shape, and ConfigError for one that must not be."""
    best: Any = entry.get("best")
    if not fits(entry, SHAPE) or (entry["key"]["task"] is None and not best["mean_figures"]):
        raise DataError("another shape")
    if not all(fits(figures, GRADED) for figures in entry["validation"].values() if GRADED.keys() & figures.keys()):
        raise DataError("another shape")
    best_file.check("overrides", {"overrides": [*best["overrides"], *best["stage_overrides"]]})
    if not all(item.startswith("builder.stages.") for item in best["stage_overrides"]):
        raise DataError("another shape")
    return Winner(**{name: entry[name] for name in ("key", "best", "when", "numbers", "validation")})


def _write(cell: Cell, key: Mapping[str, Any], entry: Mapping[str, Any]) -> None:
    what = {name: value for name, value in key.items() if name != "model"}
    file = folder_of(cell.settings.cache_dir) / f"{_digest(what)}_{_digest(key['model'])}.json"
    try:
        write_sealed(file, {"format": FORMAT, "key": key, **entry})
    except OSError as error:
        log.warning("cache: %s: the winner cannot be kept there (%s)", file.parent, error.strerror)


def _model(cell: Cell) -> dict[str, Any]:
    """Which weights: a hash of their files where this machine has them, and the name they were asked for by."""
    settings = cell.settings.model
    folder = Path(settings.path or "").expanduser()
    path = str(folder.resolve()) if settings.path and folder.is_dir() else settings.path
    here = files_of(settings.path, settings.revision)
    files = digest_of_model(settings.path, settings.revision, cell.settings.cache_dir) if here else None
    return {"path": path, "revision": settings.revision, "files": files}


def _is_same_model(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    if one["files"] is not None and other["files"] is not None:
        return bool(one["files"] == other["files"])
    return (one["path"], one["revision"]) == (other["path"], other["revision"])


def _digest(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, default=str).encode()).hexdigest()[:32]
