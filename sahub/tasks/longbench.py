"""LongBench: reading, summarising, few-shot and code tasks in English and Chinese.

Source   Bai et al. 2023, arXiv:2308.14508; rows as in the dataset Xnhyacinth/LongBench (config = subset, split test),
         or as the authors' own zip holds them, dataset THUDM/LongBench
Differs  the authors' rows hold no prompts: they get ours; budgets are the official ones, not the mirror's (+20)
"""

from collections.abc import Callable

from sahub.data import locate, longbench_rows, tables
from sahub.data.examples import Example, TaskSpec
from sahub.scores import reference_check

SUBSETS = (
    "narrativeqa", "qasper", "multifieldqa_en", "multifieldqa_zh", "hotpotqa", "2wikimqa", "musique", "dureader",
    "gov_report", "qmsum", "multi_news", "vcsum", "trec", "triviaqa", "samsum", "lsht", "passage_count",
    "passage_retrieval_en", "passage_retrieval_zh", "lcc", "repobench-p",
)  # fmt: skip


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    tables.check_subset(spec, SUBSETS)
    return locate.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; `length` and `count_tokens` are not used.

    A question's metadata are its `length` in words and, for classifications, `all_classes`.

    Raises ConfigError for an unknown subset or option, MissingFiles where there are no data, DataError for a missing
    column or a cell of another type.
    """
    del length, count_tokens
    tables.check_subset(spec, SUBSETS)
    rows = longbench_rows.read(spec)
    return tables.examples(rows, spec, split=split, limit=limit, seed=seed, check=reference_check(spec.name))
