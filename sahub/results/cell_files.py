"""The files of a cell: best configuration, trials, answers and metrics. Only these functions know names and columns."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from statistics import fmean
from typing import Any

from sahub.config.cell import Cell
from sahub.engine import gold
from sahub.engine.outcome import Answer, Outcome
from sahub.engine.requests import Request
from sahub.files.atomic import read_json, write_csv, write_json, write_jsonl, write_text
from sahub.files.names import file_name
from sahub.measures import MEASURES
from sahub.models import gguf
from sahub.models.weights import GGUF, locate
from sahub.results import best_file, winners
from sahub.results.reproduce import command_line, merged
from sahub.results.study_figures import decided, figures, frontier_rows
from sahub.results.validate import Validation, accuracy, graded, interval
from sahub.search.optuna_export import importances_of, write_database
from sahub.search.scope import seen_from
from sahub.search.trial import Study, Trial, space_of_cell

ONE_BUDGET = ("frontier.density=[]", "frontier.aux_bits=[]", "budget_search=null")  # of a frontier
VALIDATED = ("n", "contexts", "dense_score", "sparse_score", "difference", "verdict")  # told in the best file
PACKAGES = ("sahub", "torch", "transformers", "tokenizers", "optuna", "hydra-core")


def versions() -> dict[str, str]:
    """Versions of everything that computes numbers here."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found


def weights_of(cell: Cell) -> str | None:
    """How the model's file holds its weights, where that is not how they are run: `Q4_1, dequantised`."""
    file = Path(locate(cell.settings.model.path))
    return gguf.stored(file) if file.suffix == GGUF and file.is_file() else None


def write_study(cell: Cell, study: Study, requests: Sequence[Request], base: Sequence[str]) -> Path:
    """`_trials.json`, `_analysis.csv`, `_study.db`, and the best files where there are winners. Returns the folder.

    `base`: the overrides that give the cell again. Of a study of several tasks, the cell's own figures are written,
    and the means that decided beside them.
    """
    folder = cell.directory / "optimal_configs"
    write_database(folder / f"{cell.name}_study.db", cell.name, space_of_cell(cell), study)
    mean, study = study.best, seen_from(study, cell.choices.task)
    write_trials(cell, study.trials)
    if study.best is not None:
        tasks = list(study.best.tasks) or [cell.choices.task]
        best = _best(cell, study, study.best, requests, base)
        best |= {"scope": cell.settings.search.scope, "tasks": tasks}
        best["mean_figures"] = figures(mean) if mean and len(tasks) > 1 else None
        write_json(folder / f"{cell.name}.json", best)
        if not cell.pins or sum(study.counts().values()) > 1:  # what was typed in full was not searched
            winners.keep(cell, best, everywhere=len(tasks) > 1)
    if study.frontier:
        _write_frontier(cell, study, requests, base)
    return folder


def _write_frontier(cell: Cell, study: Study, requests: Sequence[Request], base: Sequence[str]) -> None:
    """`_frontier.csv`, and a best file for each budget: there it is the target, and nothing else is searched for."""
    folder, rows = cell.directory / "optimal_configs", frontier_rows(study)
    for row, (name, found) in zip(rows, study.frontier.items(), strict=True):
        target, _, bound = name.rpartition("_")
        alone = [f"objective.{target}={bound}", *(f"objective.{one}" for one in ONE_BUDGET)]
        best = _best(cell, study, found.trial, requests, merged(base, alone))
        write_json(folder / f"{cell.name}_{name}.json", {**best, "checked_figures": row["checked"]})
    flat = [{**row, "overrides": " ".join(row["overrides"]), **_flat(row["checked"])} for row in rows]
    write_csv(folder / f"{cell.name}_frontier.csv", [{k: v for k, v in row.items() if k != "checked"} for row in flat])


def _flat(checked: Mapping[str, Any] | None) -> dict[str, Any]:
    return {f"checked_{name}": number for name, number in (checked or {}).items()}


def write_trials(cell: Cell, trials: Sequence[Trial]) -> None:
    """`_trials.json`, `_analysis.csv`, and the traceback of every trial that has one."""
    folder = cell.directory / "optimal_configs"
    write_json(folder / f"{cell.name}_trials.json", [_trial_row(trial) for trial in trials])
    write_csv(folder / f"{cell.name}_analysis.csv", [_analysis_row(trial) for trial in trials])
    for trial in trials:
        if trial.details:
            write_text(folder / f"{cell.name}_trial_{trial.number}_error.txt", trial.details)


def _best(cell: Cell, study: Study, best: Trial, requests: Sequence[Request], base: Sequence[str]) -> dict[str, Any]:
    overrides = merged(base, best.overrides)
    tau = study.tau
    return {
        **asdict(cell.choices),
        "overrides": best_file.allowed(overrides),
        "to_type": best_file.to_type(overrides),
        "commands": {one: command_line(one, overrides, cell.config_dir) for one in ("search", "validate")},
        "stage_overrides": list(best.overrides),
        "figures": figures(best),
        "default_figures": figures(study.default) if study.default.state == "complete" else None,
        "n": sum(len(request.example.questions) for request in requests),
        "contexts": list(dict.fromkeys(request.example.id for request in requests)),
        "trials": study.counts(),
        "fidelity": best.fidelity,
        "generated_figures": None if study.generated is None else figures(study.generated),
        "decision": decided(study),
        "importances": importances_of(space_of_cell(cell), study),
        "calibration": None if tau is None else {**tau._asdict(), "regret": study.regret},
        "protocol": asdict(cell.settings.protocol),
        "weights": weights_of(cell),
        "seed": cell.settings.search.seed,
        "versions": versions(),
        "seconds": {"search": round(study.seconds, 3), "trial": round(best.seconds, 3)},
    }


def _trial_row(trial: Trial) -> dict[str, Any]:
    return {
        "number": trial.number,
        "state": trial.state,
        "reason": trial.reason,
        "fidelity": trial.fidelity,
        "feasible": trial.feasible,
        "overrides": list(trial.overrides),
        "value": trial.value,
        "measures": dict(trial.measures),
        "seconds": round(trial.seconds, 3),
        "contexts": trial.contexts,
        "rungs": dict(trial.rungs),
        "mean_value": fmean(there["value"] for there in trial.tasks.values()) if trial.tasks else trial.value,
        "tasks": {task: dict(there) for task, there in trial.tasks.items()},
    }


def _analysis_row(trial: Trial) -> dict[str, Any]:
    row, measures = _trial_row(trial), trial.measures
    for nested in ("measures", "rungs", "tasks"):
        del row[nested]
    return {
        **row,
        "overrides": " ".join(trial.overrides),
        **{name: measures.get(name) for name in ("density", "kv_density", "aux_bits", "bytes_per_step")},
        **{measure.column or name: measures.get(name) for name, measure in MEASURES.items() if not measure.of_measures},
    }


def write_validation(
    cell: Cell, validation: Validation, figures: Mapping[str, Any], requests: Sequence[Request]
) -> None:
    """Answers, metrics, configuration and micro metrics of the dense, the tuned and the default run."""
    winners.validated(cell, validation.entry.overrides, figures)
    _tell_best(cell, figures)
    root = cell.directory / "benchmark_results" / file_name(cell.choices.model)
    task = file_name(cell.choices.task)
    name = f"{cell.choices.builder}_{cell.choices.objective}"
    entry, contexts = validation.entry, {request.example.id: request.example.context for request in requests}
    runs: list[tuple[str, Outcome | None, tuple[str, ...] | None, Any]] = [
        ("dense", validation.dense, None, _score(validation.dense)),
        (name, validation.sparse, entry.overrides, dict(figures)),
    ]
    if validation.default is not validation.sparse:
        runs.append((f"{name}_default", validation.default, entry.default, _score(validation.default)))
    for label, outcome, overrides, metrics in runs:
        if outcome is None or outcome.state != "complete":
            continue
        folder = root / file_name(label) / task
        answers = [{**_answer_row(one), "needle": _needle(contexts[one.example_id], one)} for one in outcome.answers]
        write_csv(folder / "raw_results.csv", answers, RAW_COLUMNS)
        write_jsonl(folder / "micro_metrics.jsonl", outcome.micro)
        if lost := [{"id": _id(one), **one.gold} for one in outcome.answers if one.gold]:
            write_jsonl(folder / "gold_spans.jsonl", lost)
        write_json(folder / "metrics.json", {**metrics, "seconds": round(outcome.seconds, 3)})
        write_json(folder / "config.json", _config(cell, overrides))


def _tell_best(cell: Cell, figures: Mapping[str, Any]) -> None:
    """Add what validation found to the best file that this run's search has written."""
    file = cell.directory / "optimal_configs" / f"{cell.name}.json"
    if file.is_file():
        told = {name: figures[name] for name in VALIDATED if name in figures}
        write_json(file, {**read_json(file), "validation": told})


def _score(outcome: Outcome | None) -> dict[str, Any]:
    """n, score and measures of a run that is not the winner's."""
    if outcome is None or outcome.state != "complete":
        return {}
    score = interval(accuracy(outcome)) if graded(outcome) else None
    return {"n": len(outcome.answers), "score": score, "measures": outcome.measures()}


RAW_COLUMNS = (
    "id",
    "question",
    "answer",
    "references",
    "score",
    "answer_nll",
    "n_context",
    "n_new",
    "seconds",
    "needle",
)


def _answer_row(answer: Answer) -> dict[str, Any]:
    return {
        "id": _id(answer),
        "question": answer.question,
        "answer": answer.answer,
        "references": list(answer.references),
        "score": answer.score,
        "answer_nll": answer.measures["answer_nll"],
        "n_context": answer.n_context,
        "n_new": answer.n_new,
        "seconds": round(answer.seconds, 4),
    }


def _id(answer: Answer) -> str:
    return f"{answer.example_id}/{answer.question_id}"


def _needle(context: str, answer: Answer) -> float | None:
    """Where the first gold answer that stands in the context does, as a share of its characters."""
    found = gold.places(context, answer.references)
    return round(found[0][0] / len(context), 4) if found else None


def _config(cell: Cell, overrides: tuple[str, ...] | None) -> dict[str, Any]:
    settings = json.loads(json.dumps(asdict(cell.settings), default=str))
    builder = {"dense": None} if overrides is None else cell.builder_with(overrides)["stages"]
    what = {"weights": weights_of(cell), "settings": settings, "stages": builder, "versions": versions()}
    return {**asdict(cell.choices), **what}
