"""One number per benchmark from the numbers of its subsets, with all columns kept.

RULER, ZeroSCROLLS, InfiniteBench: mean over tasks. LongBench: mean over tasks; as columns the means of its categories
and, where every task is there, the averages of its paper. LongBench-E: mean of the means of its buckets. LongBench-v2:
overall accuracy. LooGLE names no single number: ours is the mean of its subsets' first metrics.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from sahub.scores.benchmark import Benchmark, Number, mean

CODE = ("lcc", "repobench-p")
LANGUAGES = {
    "English": {
        "single-doc QA": ("narrativeqa", "qasper", "multifieldqa_en"),
        "multi-doc QA": ("hotpotqa", "2wikimqa", "musique"),
        "summarisation": ("gov_report", "qmsum", "multi_news"),
        "few-shot": ("trec", "triviaqa", "samsum"),
        "synthetic": ("passage_count", "passage_retrieval_en"),
        "code": CODE,
    },
    "Chinese": {
        "single-doc QA": ("multifieldqa_zh",),
        "multi-doc QA": ("dureader",),
        "summarisation": ("vcsum",),
        "few-shot": ("lsht",),
        "synthetic": ("passage_retrieval_zh",),
        "code": CODE,
    },
}


@dataclass(frozen=True, kw_only=True)
class Headline:
    """A benchmark's number, in the unit of its tasks (LooGLE, InfiniteBench: fractions; the others: percent)."""

    value: float  # NaN where no task has a number
    meaning: str
    columns: dict[str, float]  # every number that it was made of, and what is reported beside it
    missing: tuple[str, ...] = field(default=())  # subsets without a number


def headline(name: str, benchmark: Benchmark, numbers: Mapping[str, Number]) -> Headline:
    """The number of benchmark `name` from {subset: what `aggregate` gave}; subsets that were not run are `missing`."""
    subsets = [subset for subset in benchmark.subsets if subset in numbers]
    columns: dict[str, float] = {}
    for subset in subsets:
        found = numbers[subset]
        columns |= (
            {f"{subset} {key}": one for key, one in found.items()} if isinstance(found, dict) else {subset: found}
        )
    first = {subset: _first(benchmark, subset, numbers[subset]) for subset in subsets}
    value, meaning = _mean(first.values()), "mean over tasks"
    if name == "longbench":
        columns |= _categories(first)
    elif name == "longbench_e":
        buckets = _by_key(numbers[subset] for subset in subsets)
        columns |= buckets
        value, meaning = _mean(buckets.values()), "mean over the buckets of the mean over tasks"
    elif name == "longbench_v2":
        value, meaning = next(iter(first.values()), math.nan), f"overall accuracy, {'/'.join(subsets[:1])}"
    elif name == "loogle":
        columns |= _by_key(numbers[subset] for subset in subsets)
        meaning = "mean over tasks of each task's first metric; not an official number"
    missing = tuple(subset for subset in benchmark.subsets if subset not in numbers)
    return Headline(value=value, meaning=meaning, columns=columns, missing=() if name == "longbench_v2" else missing)


def _first(benchmark: Benchmark, subset: str, found: Number) -> float:
    """The number that stands for a subset: of its first metric where that is among them, else the first there is."""
    if not isinstance(found, dict):
        return found
    metric = next(iter(benchmark.subsets[subset]))
    return found.get(metric, next(iter(found.values())))


def _categories(tasks: Mapping[str, float]) -> dict[str, float]:
    columns: dict[str, float] = {}
    for language, categories in LANGUAGES.items():
        held = {name: [tasks[task] for task in members if task in tasks] for name, members in categories.items()}
        columns |= {f"{language} {name}": mean(numbers) for name, numbers in held.items() if numbers}
        if all(task in tasks for members in categories.values() for task in members):
            columns[f"{language} average"] = mean([mean(numbers) for numbers in held.values()])
    return columns


def _by_key(numbers: Iterable[Number]) -> dict[str, float]:
    """The mean of every column of the tables, over those that have it."""
    tables = [found for found in numbers if isinstance(found, dict)]
    keys = dict.fromkeys(key for table in tables for key in table)
    return {key: _mean(table[key] for table in tables if key in table) for key in keys}


def _mean(numbers: Iterable[float]) -> float:
    """The mean of those that are numbers; NaN for none."""
    held = [number for number in numbers if not math.isnan(number)]
    return mean(held) if held else math.nan
