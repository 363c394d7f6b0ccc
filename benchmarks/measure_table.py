"""Which cheap measure predicts the answer: rank correlation and regret of every measure against generated accuracy.

    python benchmarks/measure_table.py FOLDER --contexts 24 model=smollm2 task=ruler/niah_single_1 \
        search.max_context_length=1024

One model and task a call (overrides of a search); without any it only prints. Every stack of STACKS at every density of
DENSITIES answers by itself; the dense answer is forced through it, and it is replayed. What was measured is a line of
FOLDER/<model>_<task>_<length>.jsonl, a context and stack each, and is not measured again; remove the file where
measures or methods have changed. Then the table of each file and that over all files are printed.
"""

import argparse
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import fmean, pvariance

from scipy.stats import t

from sahub import scores
from sahub.config.cell import Cell, compose_cell
from sahub.engine.micro_rows import micro_rows
from sahub.engine.outcome import Outcome
from sahub.engine.requests import Prepared, Request, limit, load
from sahub.engine.session import Attention, Session
from sahub.measures import MEASURES, of_answer, of_run, of_trace
from sahub.search.trial import attention_of
from sahub.stats.intervals import kendall_tau

DENSITIES = (0.02, 0.05, 0.1, 0.2, 0.3)
SINK, WINDOW = "builder.stages.sink.sink_size.of_budget", "builder.stages.local.window_size.of_budget"
PAGES = "builder.stages.quest.page_size"
REAL = {  # methods that a deployment could use: what regret is taken among
    "quest, pages of 4": ("builder=quest", f"{PAGES}=4"),
    "quest, pages of 8, thin sink and window": ("builder=quest", f"{PAGES}=8", f"{SINK}=0.02", f"{WINDOW}=0.05"),
    "quest, pages of 16, thick sink and window": ("builder=quest", f"{PAGES}=16", f"{SINK}=0.25", f"{WINDOW}=0.75"),
    "pqcache": ("builder=pqcache",),
    "snapkv": ("builder=snapkv",),
    "double_sparsity": ("builder=double_sparsity",),
}
STACKS = {
    **REAL,
    "oracle_topk": ("builder=oracle_topk",),
    "random_sampling": ("builder=random_sampling",),
    "streaming_llm": ("builder=streaming_llm",),
}
TRUTH = ("generate", "benchmark_score")

Column = tuple[str, str]  # fidelity, measure
Name = tuple[str, float]  # of a stack, and its density


@dataclass(frozen=True)
class Numbers:
    """What was measured: by column, a list over contexts of the numbers of all `names`, lower is better."""

    names: list[Name]
    columns: Mapping[Column, list[list[float]]]

    @property
    def contexts(self) -> int:
        """How many contexts every stack has seen."""
        return len(self.columns[TRUTH])

    def means(self, column: Column, contexts: Sequence[int]) -> list[float]:
        """Of every stack over these contexts, to 9 digits: what differs by less is a tie."""
        rows = self.columns[column]
        return [round(fmean(rows[context][at] for context in contexts), 9) for at in range(len(self.names))]


@dataclass(frozen=True)
class Line:
    """How a measure predicts the score: tau over all stacks, by density, and the points lost by its choice, by density.

    None where all stacks score the same, or measure the same.
    """

    overall: float | None
    within: list[float | None]
    regrets: list[float]

    @property
    def mean(self) -> float:
        """Mean tau within a density."""
        return fmean(self._known)

    @property
    def least(self) -> float:
        """Least tau within a density."""
        return min(self._known)

    @property
    def _known(self) -> list[float]:
        return [tau for tau in self.within if tau is not None] or [math.nan]


def line_of(numbers: Numbers, column: Column, contexts: Sequence[int]) -> Line:
    """The measure against generated accuracy, both over these contexts."""
    measured, lost = numbers.means(column, contexts), numbers.means(TRUTH, contexts)
    groups = [
        [at for at, (_, density) in enumerate(numbers.names) if density == one]
        for one in sorted({density for _, density in numbers.names})
    ]
    taus = [kendall_tau([measured[at] for at in group], [lost[at] for at in group]).tau for group in groups]
    real = [[at for at in group if numbers.names[at][0] in REAL] for group in groups]
    regrets = [regret([measured[at] for at in group], [lost[at] for at in group]) for group in real if group]
    return Line(kendall_tau(measured, lost).tau, taus, regrets)


def regret(measured: Sequence[float], lost: Sequence[float]) -> float:
    """Points of accuracy that the best measured gives away; of equally good ones the mean."""
    best = min(measured)
    return 100 * (fmean(one for one, number in zip(lost, measured, strict=True) if number == best) - min(lost))


def interval(numbers: Numbers, column: Column, of: Callable[[Line], float | None]) -> tuple[float, float]:
    """The 95 % interval of a number of lines by the jackknife over contexts.

    Contexts that are drawn twice, as a bootstrap does, make stacks equal that are not: it would lie below the number.
    """
    contexts = range(numbers.contexts)
    if len(contexts) < 2:
        return math.nan, math.nan
    whole = of(line_of(numbers, column, contexts))
    each = [of(line_of(numbers, column, [one for one in contexts if one != out])) for out in contexts]
    known = [one for one in each if one is not None and not math.isnan(one)]
    if whole is None or len(known) < 2:
        return math.nan, math.nan
    error = math.sqrt((len(known) - 1) * pvariance(known))
    reach = error * float(t.ppf(0.975, len(known) - 1))
    return max(-1.0, whole - reach), min(1.0, whole + reach)


def read(path: Path) -> Numbers:
    """The contexts of a file that every stack has seen."""
    rows: dict[int, dict[Name, dict[Column, float]]] = defaultdict(dict)
    for line in path.read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        rows[row["context"]][row["stack"], row["density"]] = {
            (fidelity, name): number for fidelity, found in row["measures"].items() for name, number in found.items()
        }
    names = sorted({name for found in rows.values() for name in found})
    whole = [found for _, found in sorted(rows.items()) if len(found) == len(names)]
    columns = [column for column in whole[0][names[0]] if column[1] in MEASURES] if whole else [TRUTH]
    columns = [column for column in columns if all(column in found[name] for found in whole for name in names)]
    return Numbers(
        names, {column: [[_lower(column, found[name]) for name in names] for found in whole] for column in columns}
    )


def _lower(column: Column, found: Mapping[Column, float]) -> float:
    return 1.0 - found[column] if MEASURES[column[1]].higher_is_better else found[column]


def stacks(given: Sequence[str]) -> Iterator[tuple[Name, Attention]]:
    """Every stack at every density."""
    for density in DENSITIES:
        budget = ("objective=default", f"objective.density={density}", f"objective.budget={density}")
        for name, typed in STACKS.items():
            yield (name, density), attention_of(compose_cell([*budget, *typed, *given]), ())


def measured(session: Session, request: Request, attention: Attention, cell: Cell) -> dict[str, dict[str, float]]:
    """Every measure of a stack on a context's first question, by fidelity."""
    question, ids = request.example.questions[0], list(request.question_ids[0])
    most = limit(question, cell.settings.search.max_new_tokens)
    prefix = session.prefix(request.context_ids, request.room(most))
    dense = session.dense_answer(prefix, request.context_ids, tuple(ids), max_new_tokens=most)
    forced = session.force(prefix, ids, dense.ids, attention)
    replayed = session.replay(prefix, ids, dense.ids, attention)
    answer = session.generate(prefix, ids, replace(attention, measure=0), max_new_tokens=most)
    layers = session.model.geometry.layers
    runs = {
        name: of_run(Outcome(attention=attention, micro=micro_rows(run, request.example.id, "", layers, len(ids))))
        for name, run in (("teacher", forced), ("replay", replayed))
    }
    return {
        "generate": {
            "benchmark_score": scores.score(cell.choices.task, session.model.decode(answer.ids), question.references)
        },
        "teacher": {**of_answer(dense.logits, forced.logits, dense.ids), **runs["teacher"]},
        "replay": {**of_trace(replayed.tallies), **runs["replay"]},
    }


def measure(given: Sequence[str], contexts: int, folder: Path) -> None:
    """Measure what a file of the folder does not hold yet."""
    given = ["objective=default", f"search.max_requests={contexts}", "compute=inline", *given]
    cell = compose_cell(given)
    model = load(cell)
    session, requests = Session(model), Prepared(model).requests(cell, "search")
    name = f"{cell.choices.model}_{cell.choices.task.replace('/', '_')}_{cell.settings.search.max_context_length}"
    path = folder / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()] if path.exists() else []
    done = {(row["context"], row["stack"], row["density"]) for row in rows}
    every = dict(stacks([one for one in given if not one.startswith("objective")]))
    for (number, request), (stack, density) in product(enumerate(requests), every):
        if (number, stack, density) in done:
            continue
        found = measured(session, request, every[stack, density], cell)
        row = {"context": number, "stack": stack, "density": density, "measures": found}
        with path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(row)}\n")


def table(numbers: Numbers) -> Iterator[str]:
    """A markdown line per measure, the best first."""
    contexts = range(numbers.contexts)
    lines = {column: line_of(numbers, column, contexts) for column in numbers.columns if column != TRUTH}
    for column, line in sorted(lines.items(), key=lambda pair: -pair[1].mean):
        cells = [
            f"{number:.2f} [{', '.join(f'{end:.2f}' for end in interval(numbers, column, of))}]"
            for number, of in ((line.overall, lambda one: one.overall), (line.mean, lambda one: one.mean))
        ]
        regrets = f"{fmean(line.regrets):.1f} | {max(line.regrets):.1f}"
        yield f"| {column[1]} | {column[0]} | {cells[0]} | {cells[1]} | {line.least:.2f} | {regrets} |"


def together(files: Mapping[str, Numbers]) -> Iterator[str]:
    """A markdown line per measure over all files: mean, least file and least density; mean and worst regret."""
    shared = set.intersection(*[set(numbers.columns) for numbers in files.values()]) - {TRUTH}
    found = {
        column: [line_of(numbers, column, range(numbers.contexts)) for numbers in files.values()] for column in shared
    }
    for column, lines in sorted(found.items(), key=lambda pair: -fmean(line.mean for line in pair[1])):
        taus, regrets = [line.mean for line in lines], [fmean(line.regrets) for line in lines]
        cells = [f"{one:.2f}" for one in (fmean(taus), min(taus), min(line.least for line in lines))]
        cells += [f"{one:.1f}" for one in (fmean(regrets), max(regrets))]
        yield f"| {column[1]} | {column[0]} | {' | '.join(cells)} |"


HEAD = "| measure | fidelity | {} |\n|---|---|{}"
ONE = ("tau over all", "tau within a density", "least", "regret", "worst")
ALL = ("tau within a density", "least task", "least density", "regret", "worst task")


def main() -> None:
    """Measure what is asked for, then print what the folder holds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--contexts", type=int, default=24)
    parser.add_argument("overrides", nargs="*")
    asked = parser.parse_intermixed_args()
    asked.folder.mkdir(parents=True, exist_ok=True)
    if asked.overrides:
        measure(asked.overrides, asked.contexts, asked.folder)
    files = {path.stem: read(path) for path in sorted(asked.folder.glob("*.jsonl"))}
    files = {name: numbers for name, numbers in files.items() if numbers.contexts}
    for name, numbers in files.items():
        say(f"\n{name}: {len(numbers.names)} stacks, {numbers.contexts} contexts\n")
        say(HEAD.format(" | ".join(ONE), "---|" * len(ONE)), *table(numbers))
    if len(files) > 1:
        say(f"\n{len(files)} tasks\n", HEAD.format(" | ".join(ALL), "---|" * len(ALL)), *together(files))


def say(*lines: str) -> None:
    """Print lines."""
    print(*lines, sep="\n")  # noqa: T201


if __name__ == "__main__":
    main()
