"""One search for every budget against a search for each: `python benchmarks/frontier.py OUT [--samples 50]`.

quest and pqcache on the embedded model, ruler/niah_multikey_2 at 1,024 tokens: the winners of `objective=frontier` for
5, 10 and 20 % of the keys beside those of sparsity_5, _10 and _20, of as many trials each, on contexts that no search
has seen. Prints accuracies and measures, and the paired differences with 95 % intervals; no worse: none lies below 0.
What is finished lies in the cache and is not done again.
"""

import argparse
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sahub import optimize_matrix
from sahub.config.cell import compose_cell
from sahub.results.cell_result import CellResult
from sahub.results.validate import difference
from sahub.run.matrix import run_matrix
from sahub.stats.intervals import Interval

BUDGETS = (5, 10, 20)  # % of the keys
BUILDERS = ("quest", "pqcache")
CELL = {"models": ["embedded"], "tasks": ["ruler/niah_multikey_2"], "builders": BUILDERS}


def limits(options: argparse.Namespace) -> list[str]:
    """What all runs have in common."""
    lengths = [f"{phase}.max_context_length=1024" for phase in ("search", "validate")]
    lengths += [f"{phase}.max_new_tokens=20" for phase in ("search", "validate")]
    counts = [f"search.num_samples={options.samples}", f"validate.max_requests={options.contexts}"]
    return [*lengths, *counts, f"search.seed={options.seed}", "compute=inline", *options.set]


def searched(objectives: list[str], options: argparse.Namespace) -> dict[tuple[str, str], CellResult]:
    """The results by builder and objective."""
    found = optimize_matrix(
        **CELL, objectives=objectives, overrides=limits(options), directory=options.out / objectives[0]
    )
    return {(one.cell.choices.builder, one.cell.choices.objective): one for one in found}


def validated(one: CellResult, budget: int, options: argparse.Namespace) -> CellResult:
    """The frontier's winner for a budget, on the contexts of all validations."""
    file = one.cell.directory / "optimal_configs" / f"{one.cell.name}_density_{budget / 100:g}.json"
    overrides = json.loads(file.read_text("utf-8"))["overrides"]
    directory = options.out / "validated" / f"{one.cell.choices.builder}_{budget}"
    cell = compose_cell([*overrides, "compute=inline", *options.set], command="validate", directory=directory)
    [found] = run_matrix([cell], directory)
    return found


def lines(options: argparse.Namespace) -> Iterator[str]:
    """The table, a line a budget and builder."""
    frontier = searched(["frontier"], options)
    alone = searched([f"sparsity_{budget}" for budget in BUDGETS], options)
    yield "| builder | % | KL, frontier | KL, dedicated | accuracy, frontier | accuracy, dedicated | difference |"
    yield "|:--|--:|--:|--:|--:|--:|--:|"
    for builder in BUILDERS:
        for budget in BUDGETS:
            one = validated(frontier[builder, "frontier"], budget, options)
            other = alone[builder, f"sparsity_{budget}"]
            yield _line(builder, budget, one, other)


def _line(builder: str, budget: int, one: CellResult, other: CellResult) -> str:
    assert one.validation is not None
    assert other.validation is not None
    kls = [f"{each.figures['measures']['answer_kl']:.3g}" for each in (one, other)]
    scores = [_percent(each.figures["sparse_score"]) for each in (one, other)]
    found: Interval = difference(one.validation.sparse, other.validation.sparse)
    return f"| {' | '.join([builder, str(budget), *kls, *scores, _percent(found._asdict())])} |"


def _percent(found: Any) -> str:
    return f"{100 * found['mean']:.1f} [{100 * found['low']:.0f},{100 * found['high']:.0f}]"


def main() -> None:
    """Search, validate, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path)
    parser.add_argument("--samples", type=int, default=50, help="trials of a search")
    parser.add_argument("--contexts", type=int, default=100, help="that validate")
    parser.add_argument("--seed", type=int, default=4000, help="of searches and contexts")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="further overrides")
    for line in lines(parser.parse_args()):
        sys.stdout.write(line + "\n")


if __name__ == "__main__":
    main()
