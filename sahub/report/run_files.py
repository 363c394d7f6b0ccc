"""The files of finished runs, as a report reads them: somebody else may have written them."""

import csv
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from sahub.errors import ConfigError, DataError, MissingFiles, NewerFormat
from sahub.files.atomic import read_json
from sahub.files.names import file_name
from sahub.files.shapes import fits
from sahub.report.summary import FORMAT
from sahub.report.tables import Row

FILE = "benchmark_summary.json"
NUMBERS = {str: (float, None)}
SHAPE = {
    **dict.fromkeys(("model", "task", "builder", "objective", "message", "directory", "measure"), str),
    "ok": bool,
    "protocol": dict,
    "methods": [str],
    "compared": dict,
    "trials": ({str: int}, None),
    "best": ({"overrides": [str]}, None),
    "calibration": (NUMBERS, None),
    "decision": ({"stays": str, "contexts": int}, None),
    "frontier": [{"budget": str, "overrides": [str], "value": float, "density": float, "aux_bits": float}],
    "importances": ({str: float}, None),
    "validation": ({"n": int, "measures": NUMBERS}, None),
    "target_density": (float, None),
    "target_aux_bits": (float, None),
    "weights": (str, None),
    "seconds": float,
}
INTERVAL = dict.fromkeys(("mean", "low", "high"), float)
GRADED = {
    **dict.fromkeys(("dense_score", "sparse_score", "difference"), INTERVAL),
    "paired": {name: [float] for name in ("sums", "sizes", "counts")},
    "verdict": {"margin": float},
    "contexts": int,
    "tokens": float,
}
GOLD = {"id": str, "spans": [[float]], "layers": [float], "weight": [[float]], "lost": [[float]]}
SUMMARY = {"cells": [SHAPE], "headlines": [str], "work": dict, "versions": {str: str}, "seconds": float}


@dataclass(frozen=True, kw_only=True)
class RunFiles:
    """A run: its directory, the content of its summary, and the name by which it is told from others."""

    root: Path
    summary: Mapping[str, Any]
    name: str = ""


class CellFiles:
    """A row of a summary and the files of its cell; what a cell has not got is empty."""

    def __init__(self, run: RunFiles, row: Row) -> None:
        own = run.root / Path(row["directory"]).name
        self.run, self.row, self.folder = run, row, own if own.is_dir() else run.root

    @cached_property
    def trials(self) -> Sequence[Mapping[str, Any]]:
        """Every trial of the search, at each fidelity."""
        return _read(self.folder / "optimal_configs" / f"{self._stem}_trials.json") or []

    @cached_property
    def best(self) -> Mapping[str, Any]:
        """The best file."""
        return _read(self.folder / "optimal_configs" / f"{self._stem}.json") or {}

    def metrics(self, which: str) -> Mapping[str, Any]:
        """`metrics.json` of one of the runs: dense, sparse, default."""
        return _read(self._run_folder(which) / "metrics.json") or {}

    def config(self) -> Mapping[str, Any]:
        """What the winner was validated with: settings, stages, versions."""
        return _read(self._run_folder("sparse") / "config.json") or {}

    def answers(self, which: str) -> dict[str, dict[str, str]]:
        """`raw_results.csv` of one of the runs, by the question's id."""
        file = self._run_folder(which) / "raw_results.csv"
        if not file.is_file():
            return {}
        with file.open(encoding="utf-8", newline="") as lines:
            return {row["id"]: row for row in csv.DictReader(lines)}

    def scores(self, which: str) -> dict[str, float]:
        """The score of every question that has one, by its id."""
        return {key: float(row["score"]) for key, row in self.answers(which).items() if row["score"]}

    def micro(self) -> list[dict[str, Any]]:
        """What every sparse layer did in every phase of a question, of the winner."""
        return self._lines("micro_metrics.jsonl")

    @cached_property
    def gold(self) -> Mapping[str, Mapping[str, Any]]:
        """Which heads of the winner dropped the gold answer, by the id of a question that dense answers better."""
        return {row["id"]: row for row in self._lines("gold_spans.jsonl") if fits(row, GOLD)}

    def _lines(self, name: str) -> list[dict[str, Any]]:
        """A JSON Lines file of the winner's run."""
        file = self._run_folder("sparse") / name
        return [json.loads(line) for line in file.read_text("utf-8").splitlines()] if file.is_file() else []

    @property
    def _stem(self) -> str:
        return file_name("_".join(self.row[name] for name in ("model", "task", "builder", "objective")))

    def _run_folder(self, which: str) -> Path:
        row = self.row
        own = f"{row['builder']}_{row['objective']}"
        label = {"dense": "dense", "sparse": own, "default": f"{own}_default"}[which]
        root, task = self.folder / "benchmark_results" / file_name(row["model"]), file_name(row["task"])
        if which == "default" and not (root / file_name(label)).is_dir():
            label = own  # the winner is the default
        return root / file_name(label) / task


def read_runs(folders: Sequence[str | Path], key: str = "runs") -> list[RunFiles]:
    """The runs of these folders, or below them; each has a name where there are several.

    Raises MissingFiles for a folder without a run, DataError for a summary that is none, or of an older sahub.
    """
    roots = dict.fromkeys(root for folder in folders for root in _roots(Path(folder).expanduser(), key))
    names = _names(list(roots)) if len(roots) > 1 else [""]
    return [
        RunFiles(root=root, summary=_summary(root / FILE), name=name)
        for root, name in zip(roots, names, strict=True)
    ]  # fmt: skip


def read_run(folder: str | Path, key: str) -> RunFiles:
    """The one run of a folder, or below it. Raises ConfigError for several, and what `read_runs` raises."""
    found = read_runs([folder], key)
    if len(found) > 1:
        names = ", ".join(run.name for run in found)
        raise ConfigError(f"{key}={folder}: must be one run; there are {len(found)} below it: {names}")
    return found[0]


def _roots(folder: Path, key: str) -> list[Path]:
    found = [folder] if (folder / FILE).is_file() else sorted(file.parent for file in folder.rglob(FILE))
    if not found:
        raise MissingFiles(f"{key}={folder}: no {FILE} in it or below it; must be the directory of a finished run")
    return [root.resolve() for root in found]


def _names(roots: Sequence[Path]) -> list[str]:
    """As little of each path, from its end, as tells it from the others."""
    for many in range(1, max(len(root.parts) for root in roots)):
        names = ["/".join(root.parts[-many:]) for root in roots]
        if len({*names}) == len(roots):
            return names
    return [str(root) for root in roots]


def _summary(file: Path) -> Mapping[str, Any]:
    content = read_json(file)
    form = content.get("format", 1) if isinstance(content, dict) else None
    if isinstance(form, int) and form > FORMAT:
        raise NewerFormat(f"{file}: written by a newer sahub (format {form})")
    if isinstance(form, int) and form < FORMAT:
        raise DataError(f"{file}: written by an older sahub; run the same command again, finished work is kept")
    if not fits(content, SUMMARY) or not content["cells"] or not all(map(_scores_fit, content["cells"])):
        raise DataError(f"{file}: must be the summary of a run")
    found: Mapping[str, Any] = content
    return found


def _scores_fit(row: Row) -> bool:
    validation = row["validation"] or {}
    return fits(validation, GRADED) if "sparse_score" in validation else True


def _read(file: Path) -> Any:
    return read_json(file) if file.is_file() else None
