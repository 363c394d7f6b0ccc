"""What a benchmark's authors would report of a validation: of a task, and of all tasks of a run together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from sahub.config.cell import Cell
from sahub.engine.outcome import Outcome
from sahub.scores import aggregate, headline, metrics_of, primary_metric
from sahub.scores.benchmark import Number

Found = Sequence[tuple[Cell, Mapping[str, Any]]]  # cells with the figures of their validations


def official(cell: Cell, outcome: Outcome) -> dict[str, float | None]:
    """The official number of the graded answers, by metric or group; None where a group has no answer.

    Raises ScoreError for answers without what the benchmark groups by.
    """
    task = cell.settings.task
    name = f"{task.benchmark}/{task.subset}"
    metric = None if task.metric in (None, *metrics_of(name)) else task.metric
    rows = [
        {**answer.metadata, "prediction": answer.answer, "references": answer.references}
        for answer in outcome.answers
        if answer.score is not None
    ]
    number = aggregate(name, rows, metric=metric)
    found = number if isinstance(number, dict) else {metric or primary_metric(name): number}
    return {key: None if math.isnan(one) else one for key, one in found.items()}


def benchmarks(found: Found) -> list[dict[str, Any]]:
    """Each benchmark's one number, dense and sparse, per model, builder, objective and length."""
    groups: dict[tuple[str | int, ...], dict[str, dict[str, Number]]] = {}
    for cell, figures in found:
        choices, settings = cell.choices, cell.settings
        length = settings.task.length or settings.validate.max_context_length
        key = (choices.model, choices.builder, choices.objective, settings.task.benchmark, length)
        for run, numbers in figures.get("official", {}).items():
            subsets = groups.setdefault(key, {}).setdefault(run, {})
            subsets[settings.task.subset] = _number(numbers)
    names = ("model", "builder", "objective", "benchmark", "length")
    return [
        dict(zip(names, key, strict=True))
        | {"tasks": list(dict.fromkeys(subset for held in runs.values() for subset in held))}
        | {run: _written(str(key[3]), held) for run, held in runs.items()}
        for key, runs in groups.items()
    ]


def headline_lines(found: Found) -> list[str]:
    """A line for people per benchmark whose one number is made of several: dense, then every builder.

    Several are those of tasks, or of what one task is reported by, such as LongBench-E's buckets.
    """
    entries = benchmarks(found)
    told = ["benchmark", *(one for one in ("model", "length") if len({str(entry[one]) for entry in entries}) > 1)]
    lines: dict[tuple[str, ...], list[str]] = {}
    for entry in entries:
        runs = {name: entry[name] for name in ("dense", "sparse") if name in entry}
        first = next(iter(runs.values()))
        if len(entry["tasks"]) == 1 and entry["tasks"][0] in first["columns"]:
            continue  # it is in the table
        absent = f"; {len(first['missing'])} of its tasks were not run" if first["missing"] else ""
        names = ", ".join(str(entry[one]) for one in told)
        dense = f"dense {_text(runs['dense']['value'])}" if "dense" in runs else ""
        values = lines.setdefault((names, dense, f"{first['meaning']}{absent}"), [dense] if dense else [])
        if "sparse" in runs:
            values.append(f"{entry['builder']} {entry['objective']} {_text(runs['sparse']['value'])}")
    return [f"{names}: {', '.join(values)} ({meaning})" for (names, _, meaning), values in lines.items()]


def _text(value: float | None) -> str:
    return "-" if value is None else f"{value:.4g}"


def _number(numbers: Mapping[str, float | None]) -> Number:
    found = {name: math.nan if one is None else one for name, one in numbers.items()}
    return found if len(found) > 1 else next(iter(found.values()))


def _written(benchmark: str, numbers: Mapping[str, Number]) -> dict[str, Any]:
    """A headline as it is written to files, which have no NaN."""
    found = headline(benchmark, numbers)
    columns = {name: None if math.isnan(one) else one for name, one in found.columns.items()}
    return {**asdict(found), "value": None if math.isnan(found.value) else found.value, "columns": columns}
