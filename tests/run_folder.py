"""A finished run as its files are, without having run one."""

import csv
import json
from pathlib import Path
from random import Random
from typing import Any

from sahub.report.run_files import FILE
from sahub.report.summary import FORMAT
from sahub.stats.intervals import mean_interval, paired, paired_interval

FIELDS = ("quest.page_size", "quest.label_bits", "sink.sink_size.of_budget", "local.window_size.of_budget")
COLUMNS = ("id", "question", "answer", "references", "score", "answer_nll", "n_context", "n_new", "seconds", "needle")


def write_run(
    root: Path,
    *,
    tasks: int = 2,
    builders: tuple[str, ...] = ("quest", "streaming_llm", "oracle_topk"),
    trials: int = 16,
    questions: int = 40,
    right: dict[str, float] | None = None,
    budgets: tuple[int, ...] = (10,),
    seed: int = 0,
    **protocol: Any,
) -> Path:
    """A run of builders x tasks x budgets (%); `right` is the share of right answers of each builder."""
    chance = Random(seed)
    rows = [
        _cell(
            root, chance, f"ruler/task_{number}", builder, (right or {}).get(builder, 0.9), trials, questions, protocol,
            budget,
        )
        for number in range(tasks)
        for builder in builders
        for budget in budgets
    ]  # fmt: skip
    summary = {
        "format": FORMAT,
        "cells": rows,
        "benchmarks": [],
        "headlines": ["ruler: dense 100 (mean over tasks)"],
        "work": {"m": dict.fromkeys(("loads", "contexts", "prefills", "prefill_tokens", "generated_tokens"), 1)},
        "versions": {"sahub": "0.1.0", "torch": "2.0"},
        "seconds": 5.0,
    }
    summary["work"]["m"] |= {"computed": 1, "served": 0}  # type: ignore[index]
    _json(root / FILE, summary)
    return root


def _cell(
    root: Path, chance: Random, task: str, builder: str, right: float, trials: int, questions: int, protocol: Any,
    budget: int,
) -> dict[str, Any]:  # fmt: skip
    name = f"m_{task.replace('/', '_')}_{builder}_sparsity_{budget}"
    folder = root / name
    dense, sparse = [1.0] * questions, [float(chance.random() < right) for _ in range(questions)]
    tried = [_trial(chance, number) for number in range(trials)]
    tried += [{**one, "fidelity": "generate", "value": 0.1} for one in tried[:4]]
    best = min(tried[:trials], key=lambda one: one["value"])
    _json(folder / "optimal_configs" / f"{name}_trials.json", tried)
    lines = {one: f"python -m pipelines.{one} builder={builder}" for one in ("search", "validate")}
    found = {"overrides": [f"builder={builder}", *best["overrides"]], "stage_overrides": best["overrides"]}
    _json(folder / "optimal_configs" / f"{name}.json", {**found, "commands": lines, "to_type": []})
    runs = folder / "benchmark_results" / "m"
    for label, scores in (("dense", dense), (f"{builder}_sparsity_{budget}", sparse)):
        place = runs / label / task.replace("/", "_")
        _answers(place, scores)
        _json(place / "metrics.json", {"measures": {"bytes_per_step": 1000.0 if label == "dense" else 200.0}})
        settings = {"protocol": {"template": "auto", **protocol}, "search": {"seed": 0}}
        _json(place / "config.json", {"settings": settings, "stages": {}, "versions": {"sahub": "0.1.0"}})
        micro = [
            {"layer": layer, "phase": phase, "e": chance.random(), "density": 0.1, "rows": 4}
            for layer in range(4)
            for phase in ("question", "decode")
        ]
        (place / "micro_metrics.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in micro), "utf-8")
        if label != "dense":
            _gold(place, [f"{number:016x}/0" for number, score in enumerate(scores) if not score])
    pairs = paired(sparse, dense, None)
    measures = {"density": budget / 100, "answer_kl": 1 - right, "bytes_per_step": 200.0, "attention_error": 0.2}
    return {
        **{
            "model": "m",
            "task": task,
            "builder": builder,
            "objective": f"sparsity_{budget}",
            "ok": True,
            "message": "",
        },
        **{
            "directory": name,
            "target_density": budget / 100,
            "target_aux_bits": None,
            "measure": "answer_kl",
            "weights": None,
        },
        "methods": ["oracle_top_k" if builder.startswith("oracle") else builder],
        "protocol": {"protocol.template": "auto", "search.seed": 0} | {f"protocol.{k}": v for k, v in protocol.items()},
        "compared": {},
        "verdict": None,
        "trials": {"complete": trials, "pruned": 0, "rejected": 0, "failed": 0},
        "best": {"overrides": best["overrides"], "value": best["value"], **best["measures"]},
        "values": None,
        "calibration": {"tau": 0.5, "low": 0.1, "high": 0.8, "n": 4, "regret": 0.0},
        "decision": {"stays": "", "contexts": 16, "overrides": best["overrides"], "winner": None, "default": None},
        "frontier": [],
        "importances": {"a": 0.75, "b": 0.25},
        "validation": {
            "n": questions,
            "contexts": questions,
            "tokens": 868.0,
            "feasible": True,
            "measures": measures,
            "dense_score": mean_interval(dense)._asdict(),
            "sparse_score": mean_interval(sparse)._asdict(),
            "difference": paired_interval(sparse, dense)._asdict(),
            "paired": {key: column.tolist() for key, column in pairs._asdict().items()},
            "verdict": {"word": "undecided", "margin": 0.05, "more_contexts": None},
        },
        **{"seconds": 3.0, "computed": 0, "served": 7},
    }


def _trial(chance: Random, number: int) -> dict[str, Any]:
    value = chance.random()
    return {
        "number": number,
        "state": "complete",
        "fidelity": "teacher",
        "feasible": chance.random() < 0.8,
        "overrides": [f"builder.stages.{field}={chance.random():.4f}" for field in FIELDS],
        "value": value,
        "measures": {"density": 0.05 + 0.1 * chance.random(), "answer_kl": value, "benchmark_score": 1 - value},
    }


def _answers(place: Path, scores: list[float]) -> None:
    place.mkdir(parents=True, exist_ok=True)
    with (place / "raw_results.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for number, score in enumerate(scores):
            question = f"What is <b>number</b> {number}?\nThe number is:"
            rows.writerow(
                [f"{number:016x}/0", question, "42" if score else "7", '["42"]', score, 0.1, 868, 2, 0.1, 0.25]
            )


def _gold(place: Path, lost: list[str]) -> None:
    told = {"spans": [[200, 203]], "layers": [0, 2], "weight": [[0.01, 0.02], [0.97, 0.5]]}
    rows = [{"id": one, **told, "lost": [[0.01, 0.0], [0.97, 0.0]]} for one in lost]
    (place / "gold_spans.jsonl").write_text("".join(f"{json.dumps(one)}\n" for one in rows), "utf-8")


def _json(file: Path, content: Any) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(content, sort_keys=True), "utf-8")
