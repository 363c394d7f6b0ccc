"""Whole runs of the command line on the packaged model: files, figures, repeats, kills."""

import csv
import json
import re
import shlex
from pathlib import Path

import pytest
from commands import TINY, forked, read, sahub, start, wait_for

SMALL = ["compute=inline", "compute.threads=1", *TINY]


def best_files(root: Path) -> dict[str, dict]:
    files = [file for file in root.rglob("optimal_configs/*.json") if not file.stem.endswith("_trials")]
    return {file.name: read(file) for file in files}


def timeless(best: dict) -> str:
    return json.dumps({key: value for key, value in best.items() if key != "seconds"}, sort_keys=True)


@pytest.fixture(scope="module")
def sweep(tmp_path_factory) -> tuple[Path, str]:
    """A small sweep of two builders on one task; its directory and what it printed."""
    folder = tmp_path_factory.mktemp("sweep")
    done = sahub("search", "-m", "builder=quest,streaming_llm", *SMALL, cwd=folder)
    assert done.returncode == 0, done.stderr
    [root] = (folder / "multirun").iterdir()
    return root, done.stdout


def test_the_files_of_a_run(sweep):
    root, _ = sweep
    cell = root / "embedded_ruler_niah_multikey_2_quest_sparsity_10"
    name = cell.name
    best = read(cell / "optimal_configs" / f"{name}.json")
    trials = read(cell / "optimal_configs" / f"{name}_trials.json")
    with (cell / "optimal_configs" / f"{name}_analysis.csv").open(encoding="utf-8") as file:
        analysis = list(csv.DictReader(file))
    assert len(trials) == len(analysis) >= 4
    columns = {"number", "state", "reason", "fidelity", "feasible", "overrides", "e", "density", "kv_density"}
    assert columns | {"aux_bits", "score", "seconds"} <= analysis[0].keys()
    assert best["figures"]["feasible"] is True
    assert best["n"] == 3
    runs = cell / "benchmark_results" / "embedded"
    assert {folder.name for folder in runs.iterdir()} >= {"dense", "quest_sparsity_10"}
    for run in runs.iterdir():
        folder = run / "ruler_niah_multikey_2"
        with (folder / "raw_results.csv").open(encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == 4
        assert list(rows[0]) == [
            "id", "question", "answer", "references", "score", "answer_nll", "n_context", "n_new", "seconds",
            "needle",
        ]  # fmt: skip
        assert all(0 <= float(row["needle"]) <= 1 for row in rows)  # the gold answer stands in the context
        micro = [json.loads(line) for line in (folder / "micro_metrics.jsonl").read_text().splitlines()]
        assert len({(row["layer"], row["phase"]) for row in micro}) == 8
        if run.name == "dense":
            assert {row["density"] for row in micro} == {1.0}
        assert read(folder / "config.json")["settings"]["search"]["seed"] == 0
        assert "seconds" in read(folder / "metrics.json")
    plots = ("plots/accuracy.png", "plots/trials.png", "plots/trials.csv", "plots/layers_error.csv")
    for file in ("benchmark_summary.json", "report.html", "report.md", *plots):
        assert (root / file).stat().st_size > 500


def test_the_table_and_the_receipts(sweep):
    root, printed = sweep
    summary = read(root / "benchmark_summary.json")
    work = summary["work"]["embedded"]
    assert work["loads"] == 1
    assert work["prefills"] == work["contexts"] == 3 + 2 + 4  # whatever the number of trials and questions
    assert "model loads 1, contexts 9, prefills 9" in printed
    for cell in summary["cells"]:
        assert cell["builder"] in printed
        assert cell["validation"]["n"] == 4
        assert cell["validation"]["feasible"]
        assert cell["trials"]["failed"] == 0
    assert not re.search(r"Traceback|Warning", printed)


def test_validation_contexts_are_not_search_contexts(sweep):
    root, _ = sweep
    for name, best in best_files(root).items():
        [cell] = [file.parents[1] for file in root.rglob(f"optimal_configs/{name}")]
        with next(cell.rglob("raw_results.csv")).open(encoding="utf-8") as file:
            validated = {row["id"].split("/")[0] for row in csv.DictReader(file)}
        assert len(best["contexts"]) == 3
        assert len(validated) == 4
        assert not validated & set(best["contexts"])


def test_the_same_seed_gives_the_same_bytes(sweep, tmp_path):
    root, _ = sweep
    again = sahub("search", "builder=quest", *SMALL, cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    name = "embedded_ruler_niah_multikey_2_quest_sparsity_10.json"
    assert timeless(best_files(tmp_path)[name]) == timeless(best_files(root)[name])


def test_both_command_lines_give_the_same_figures(sweep, tmp_path):
    root, _ = sweep
    name = "embedded_ruler_niah_multikey_2_quest_sparsity_10"
    best = best_files(root)[f"{name}.json"]
    for command, line in best["commands"].items():
        python, dash, module, *overrides = shlex.split(line)
        assert (python, dash, module) == ("python", "-m", f"pipelines.{command}")
        done = sahub(command, *overrides, f"results_dir={tmp_path / command}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    [pasted] = best_files(tmp_path / "search").values()
    assert pasted["figures"] == best["figures"]
    assert pasted["trials"]["complete"] == 1
    [run] = (tmp_path / "validate" / "outputs").iterdir()
    [cell] = read(run / "benchmark_summary.json")["cells"]
    [before] = [one for one in read(root / "benchmark_summary.json")["cells"] if one["builder"] == "quest"]
    for figure in ("sparse_score", "dense_score", "difference", "measures"):
        assert cell["validation"][figure] == before["validation"][figure]


def test_validate_runs_all_winners_of_a_directory(sweep, tmp_path):
    root, _ = sweep
    done = sahub("validate", f"configs={root}", "validate.compare_with=[streaming_llm]", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [run] = (tmp_path / "multirun").iterdir()
    cells = read(run / "benchmark_summary.json")["cells"]
    assert [cell["builder"] for cell in cells] == ["quest", "streaming_llm"]
    before = {cell["builder"]: cell["validation"] for cell in read(root / "benchmark_summary.json")["cells"]}
    assert all(cell["validation"]["sparse_score"] == before[cell["builder"]]["sparse_score"] for cell in cells)
    quest, windows = cells
    difference = quest["validation"]["sparse_score"]["mean"] - windows["validation"]["sparse_score"]["mean"]
    assert quest["compared"]["streaming_llm"]["mean"] == pytest.approx(difference)
    assert windows["compared"] == {}
    assert "minus streaming_llm" in done.stdout
    assert "minus streaming_llm" in (run / "report.md").read_text("utf-8")


def test_a_kill_leaves_no_half_written_file(tmp_path):
    arguments = ["builder=quest", *SMALL, "search.num_samples=500", "search.max_requests=12"]
    with start("search", *arguments, cwd=tmp_path) as running:
        assert wait_for(lambda: running.poll() is not None or [*tmp_path.rglob("cache/**/journal/*/*.json")], 120)
        assert running.poll() is None, running.communicate()
        running.kill()
        running.communicate()
    for file in tmp_path.rglob("*.json"):
        json.loads(file.read_text(encoding="utf-8"))
    assert not list(tmp_path.rglob("optimal_configs/*.json"))
    assert not list(tmp_path.rglob("benchmark_summary.json"))


def test_a_run_without_its_hook_fails_by_name(tmp_path):
    code = (
        "import contextlib, sys, sahub.engine.session as session\n"
        "session.attached = lambda model, hook: contextlib.nullcontext()\n"
        "from sahub.cli.main import run; sys.exit(run('search', sys.argv[1:]))"
    )
    done = forked(code, "builder=quest", *SMALL, cwd=tmp_path)
    assert done.returncode == 1
    assert "sparse attention never ran" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) <= 8


def loogle_rows() -> list[dict]:
    return [
        {
            "context": f"Chapter {i}. " + "The harbor was quiet and the lamp was red. " * (20 + i),
            "question": f"\nWhat colour was the lamp in chapter {i}? ({part})",
            "answer_prefix": "Answer:",
            "answer": "The lamp was red.",
            "task": "shortdep_qa",
            "max_new_tokens": 300,
        }
        for i in range(16)
        for part in ("a", "b")
    ]


def test_loogle_from_a_local_folder(tmp_path):
    data = tmp_path / "data"
    data.mkdir()
    (data / "shortdep_qa.jsonl").write_text("".join(json.dumps(row) + "\n" for row in loogle_rows()), encoding="utf-8")
    named = ["model=embedded", "task=loogle/shortdep_qa", f"task.path={data}", "builder=quest"]
    done = sahub("search", *named, *SMALL, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "loogle/shortdep_qa" in done.stdout
    [summary] = tmp_path.rglob("benchmark_summary.json")
    [cell] = read(summary)["cells"]
    assert cell["validation"]["n"] == 4
    assert cell["validation"]["contexts"] == 2  # two questions each
    assert cell["best"] is not None
    assert "too few contexts: 2 for search, 1 of them to decide, where search.decide=2" in done.stderr


@pytest.mark.slow
def test_the_debug_run_tells_methods_apart(tmp_path):
    done = sahub("search", "+experiment=debug", "compute=inline", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [summary] = tmp_path.rglob("benchmark_summary.json")
    cells = {(cell["task"], cell["builder"]): cell for cell in read(summary)["cells"]}
    assert len(cells) == 6
    for (task, builder), cell in cells.items():
        found = cell["validation"]
        dense, sparse = found["dense_score"]["mean"], found["sparse_score"]["mean"]
        assert found["n"] >= 40
        assert found["feasible"]
        default = found.get("default_score", found["sparse_score"])["mean"]
        assert sparse >= default
        if (task, builder) == ("ruler/niah_multikey_2", "quest"):  # the cell whose default loses, and need not
            assert cell["values"]["worst"] >= 1.5 * cell["values"]["best"]
            assert sparse >= default + 0.3
        if builder == "oracle_topk":
            assert abs(sparse - dense) <= 0.05
        if builder == "streaming_llm":
            assert sparse <= dense - 0.40


def test_a_failing_cell_is_explained_and_loses_nothing_else(tmp_path):
    done = sahub("search", "-m", "builder=quest", *SMALL[:-2], "validate.max_context_length=512,120", cwd=tmp_path)
    assert done.returncode == 1
    assert "cannot hold the instruction" in done.stderr
    assert len(done.stderr.splitlines()) <= 8
    [summary] = tmp_path.rglob("benchmark_summary.json")
    good, bad = read(summary)["cells"]
    assert good["ok"]
    assert good["validation"]["n"] == 4
    assert not bad["ok"]
    assert len(best_files(tmp_path)) == 1


def test_a_builder_of_ones_own_is_found_and_its_commands_name_where(tmp_path):
    own = tmp_path / "conf" / "builder"
    own.mkdir(parents=True)
    (own / "mine.yaml").write_text(
        "stages: {sink: {sink_size: 4}, local: {density: '${objective.budget}'}}\n"
        "search: {sink: {sink_size: {choices: [1, 4, 16]}}}\n",
        encoding="utf-8",
    )
    done = sahub("search", "builder=mine", *SMALL, "--config-dir", str(tmp_path / "conf"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    [best] = best_files(tmp_path).values()
    assert f"--config-dir {tmp_path / 'conf'}" in best["commands"]["search"]
    assert "builder=mine" in best["overrides"]
