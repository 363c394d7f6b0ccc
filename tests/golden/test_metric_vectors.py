"""Scores of the official code, as run by its authors' own scripts; each vector names its source."""

import json
from pathlib import Path
from typing import Any

import pytest

from sahub.errors import ConfigError
from sahub.scores import BENCHMARKS, aggregate, ruler_length_average, score

FOLDER = Path(__file__).parent


def vectors(name: str) -> list[dict[str, Any]]:
    """The entries of the benchmarks that sahub scores."""
    entries = json.loads((FOLDER / name).read_text("utf-8"))
    return [entry for entry in entries if entry["benchmark"] in BENCHMARKS]


@pytest.mark.parametrize("entry", vectors("metric_vectors.json"), ids=lambda entry: entry["id"])
def test_score_is_the_official_one(entry: dict[str, Any]) -> None:
    task = f"{entry['benchmark']}/{entry['subset']}"
    classes = entry.get("all_classes")
    found = score(task, entry["prediction"], entry["references"], classes=classes, metric=entry.get("metric"))
    assert found == pytest.approx(entry["expected"], abs=1e-6)


KVPRESS = [entry for entry in vectors("metric_vectors.json") if "expected_kvpress" in entry]


@pytest.mark.parametrize("entry", KVPRESS, ids=lambda entry: entry["id"])
def test_kvpress_scores_by_its_own_rules(entry: dict[str, Any]) -> None:
    task, expected = f"{entry['benchmark']}/{entry['subset']}", entry["expected_kvpress"]
    if expected == "unsupported":
        with pytest.raises(ConfigError, match=f"metric=kvpress: kvpress does not score {task}"):
            score(task, entry["prediction"], entry["references"], metric="kvpress")
        return
    if isinstance(expected, list):  # matched masks, masks
        expected = expected[0] / expected[1]
    found = score(task, entry["prediction"], entry["references"], classes=entry.get("all_classes"), metric="kvpress")
    assert found == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize("entry", vectors("metric_vectors_aggregate.json"), ids=lambda entry: entry["what"][:40])
def test_aggregate_is_the_official_one(entry: dict[str, Any]) -> None:
    if entry.get("function") == "ruler_length_average":
        assert ruler_length_average(entry["rows"]) == entry["expected"]
    else:
        task = f"{entry['benchmark']}/{entry['subset']}"
        assert aggregate(task, entry["rows"], classes=entry.get("all_classes")) == entry["expected"]
        if "expected_kvpress" in entry:
            expected = entry["expected_kvpress"]["exact_match"]
            assert aggregate(task, entry["rows"], metric="kvpress") == {"kvpress": expected}


@pytest.mark.parametrize("benchmark", BENCHMARKS)
def test_every_benchmark_has_vectors(benchmark: str) -> None:
    # LongBench-E has LongBench's metrics, and vectors of its buckets alone.
    entries = vectors("metric_vectors.json") + vectors("metric_vectors_aggregate.json")
    assert any(entry["benchmark"] == benchmark for entry in entries)
