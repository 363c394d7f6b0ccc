"""Does a search win? Winner against the builder's default and dense, on contexts that no search has seen, cell by cell.

    python benchmarks/winners.py OUT [--models smollm2,embedded] [--samples 50] [--contexts 60] [--table]

Cells of a task that differ in builder and target are one run, so that prefixes and dense answers are shared; what is
finished lies in OUT and is not done again, nor is what the cache holds of a run that was stopped. Prints the table as
markdown: accuracies in % with 95 % intervals, the paired difference, and the p-value against `no worse than the
default`, by Holm over all cells. `--table` prints what is there and runs nothing. Hours for all of it on one core.
"""

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sahub import optimize_matrix
from sahub.files.atomic import write_json
from sahub.results.cell_result import CellResult
from sahub.results.validate import contexts_of, scores_of
from sahub.stats.intervals import TAIL, Interval, holm, mean_interval, paired_interval, paired_p_value

LOST = 0.1  # what a default loses to dense where a search has something to win


@dataclass(frozen=True, kw_only=True)
class Group:
    """Cells of one run: a task at one length."""

    model: str
    task: str
    length: int  # tokens
    builders: tuple[str, ...]
    objectives: tuple[str, ...]
    contexts: int  # that validate
    new_tokens: int  # of an answer, at most

    @property
    def name(self) -> str:
        """Of its files."""
        return f"{self.model}_{self.task}_{self.length}"


SMOLLM2: dict[str, Any] = {
    "model": "smollm2", "builders": ("quest", "pqcache", "snapkv"), "objectives": ("sparsity_10",), "contexts": 60
}  # fmt: skip
EMBEDDED: dict[str, Any] = {
    "model": "embedded", "builders": ("quest", "pqcache", "double_sparsity", "snapkv"),
    "objectives": ("sparsity_5", "sparsity_10"), "contexts": 100, "length": 1024,
}  # fmt: skip
GROUPS = (
    Group(task="niah_single_1", length=1024, new_tokens=20, **SMOLLM2),
    Group(task="niah_multivalue", length=512, new_tokens=64, **SMOLLM2),
    Group(task="niah_multikey_2", length=512, new_tokens=20, **SMOLLM2),
    Group(task="niah_multikey_2", new_tokens=20, **EMBEDDED),
    Group(task="niah_multivalue", new_tokens=40, **EMBEDDED),
    Group(task="vt", new_tokens=40, **EMBEDDED),
)


def run(group: Group, out: Path, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Search and validate the cells of a group; the scores of every cell."""
    limits = [f"{phase}.max_context_length={group.length}" for phase in ("search", "validate")]
    limits += [f"{phase}.max_new_tokens={group.new_tokens}" for phase in ("search", "validate")]
    found = optimize_matrix(
        models=[group.model],
        tasks=[f"ruler/{group.task}"],
        builders=group.builders,
        objectives=group.objectives,
        overrides=[
            *limits, f"validate.max_requests={options.contexts or group.contexts}", "compute=inline",
            f"search.num_samples={options.samples}", f"search.seed={options.seed}", *options.set,
        ],
        directory=out / group.name,
    )  # fmt: skip
    return (row(group, result) for result in found)


def row(group: Group, result: CellResult) -> dict[str, Any]:
    """The scores of one cell by context, and how its search ended."""
    choices, validation, study = result.cell.choices, result.validation, result.study
    names = {"model": group.model, "task": group.task, "length": group.length}
    names |= {"builder": choices.builder, "objective": choices.objective}
    if validation is None or study is None or study.best is None or validation.default is None:
        return {**names, "failed": result.message or "no winner, or no default beside it"}
    outcomes = {"dense": validation.dense, "winner": validation.sparse, "default": validation.default}
    return {
        **names,
        "contexts": contexts_of(validation.dense),
        "scores": {name: scores_of(outcome) for name, outcome in outcomes.items()},
        "densities": {name: outcome.measures()["density"] for name, outcome in outcomes.items()},
        "stays": None if study.decision is None else study.decision.stays,
        "overrides": list(study.best.overrides),
        "trials": study.counts(),
        "seconds": study.seconds,
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """All cells as markdown, with what follows from them."""
    done = [one for one in rows if "failed" not in one]
    if not done:
        return "nothing is finished"
    adjusted = holm([_against(one) for one in done])
    lines = [
        "| model | task | tokens | builder | objective | n | dense | default | winner | difference | p, Holm | "
        "density | kept | s |",
        "|:--|:--|--:|:--|:--|--:|--:|--:|--:|--:|--:|--:|:--|--:|",
    ]
    lines += [_line(one, p) for one, p in zip(done, adjusted, strict=True)]
    lost = [one for one in done if _mean(one, "default") <= _mean(one, "dense") - LOST + 1e-9]
    won = [one for one in lost if _difference(one).low > 0]
    worse = sum(p < TAIL for p in adjusted)
    lines += [
        "",
        f"{len(done)} cells: {worse} winners worse than their default (p < {TAIL:g} by Holm); the default loses "
        f"{100 * LOST:g} points or more to dense in {len(lost)}, in {len(won)} of these the winner is better (95 %).",
        *(f"failed: {one['model']} {one['task']} {one['builder']}: {one['failed']}" for one in rows if "failed" in one),
    ]
    return "\n".join(lines)


def _line(one: dict[str, Any], p: float) -> str:
    scores = [_percent(mean_interval(one["scores"][name], one["contexts"])) for name in ("dense", "default", "winner")]
    kept = {None: "-", "": "tuned"}.get(one["stays"], "default")
    where = [one["model"], one["task"], str(one["length"]), one["builder"], one["objective"]]
    numbers = [str(len(set(one["contexts"]))), *scores, _percent(_difference(one), "+"), f"{p:.2g}"]
    rest = [f"{one['densities']['winner']:.3f}", kept, f"{one['seconds']:.0f}"]
    return f"| {' | '.join([*where, *numbers, *rest])} |"


def _difference(one: dict[str, Any]) -> Interval:
    return paired_interval(one["scores"]["winner"], one["scores"]["default"], one["contexts"])


def _against(one: dict[str, Any]) -> float:
    """The p-value against a winner that is no worse than the default."""
    return paired_p_value(one["scores"]["default"], one["scores"]["winner"], one["contexts"])


def _mean(one: dict[str, Any], name: str) -> float:
    return mean_interval(one["scores"][name], one["contexts"]).mean


def _percent(found: Interval, sign: str = "") -> str:
    return f"{100 * found.mean:{sign}.1f} [{100 * found.low:{sign}.0f},{100 * found.high:{sign}.0f}]"


def main() -> None:
    """Run what is not finished, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--models", default="smollm2,embedded")
    parser.add_argument("--samples", type=int, default=50, help="trials of a search")
    parser.add_argument("--contexts", type=int, help="that validate (default: 60 for smollm2, 100 for embedded)")
    parser.add_argument("--seed", type=int, default=3000, help="of searches and contexts")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further overrides")
    parser.add_argument("--table", action="store_true", help="print what is there")
    options = parser.parse_args()
    failed: list[dict[str, Any]] = []
    files = [options.out / f"{group.name}.json" for group in GROUPS]
    for group, file in zip(GROUPS, files, strict=True):
        if group.model in options.models.split(",") and not file.is_file() and not options.table:
            rows = list(run(group, options.out, options))
            failed += [one for one in rows if "failed" in one]
            if not any("failed" in one for one in rows):  # else the same command tries the group again
                write_json(file, rows)
            sys.stderr.write(f"{group.name}: done\n")
    done = [one for file in files if file.is_file() for one in json.loads(file.read_text("utf-8"))]
    sys.stdout.write(table([*done, *failed]) + "\n")


if __name__ == "__main__":
    main()
