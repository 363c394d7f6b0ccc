"""LongBench-E: thirteen tasks of LongBench with their samples spread over three buckets of length.

Source   Bai et al. 2023, arXiv:2308.14508; rows as in the dataset Xnhyacinth/LongBench (config = subset + `_e`)
Differs  as LongBench
"""

from collections.abc import Callable

from sahub.data import locate, longbench_rows, tables
from sahub.data.examples import Example, TaskSpec
from sahub.scores import reference_check
from sahub.scores.longbench import bucket

SUBSETS = (
    "qasper", "multifieldqa_en", "hotpotqa", "2wikimqa", "gov_report", "multi_news", "trec", "triviaqa", "samsum",
    "passage_count", "passage_retrieval_en", "lcc", "repobench-p",
)  # fmt: skip


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    tables.check_subset(spec, SUBSETS)
    return locate.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """As LongBench; the `length` in every question's metadata decides its bucket, and must be there.

    Of every bucket its share is drawn.
    """
    del length, count_tokens
    tables.check_subset(spec, SUBSETS)
    rows = longbench_rows.read(spec, needs_length=True)
    check = reference_check(spec.name)
    return tables.examples(
        rows, spec, split=split, limit=limit, seed=seed, group=lambda metadata: bucket(metadata["length"]), check=check
    )
