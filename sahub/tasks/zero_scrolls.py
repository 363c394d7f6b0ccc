"""ZeroSCROLLS: ten tasks of summarising, answering and ordering over long documents, asked without examples.

Source   Shaham et al. 2023, arXiv:2305.14196; rows as in the zips of the dataset tau/zero_scrolls (split validation has
         gold answers, test has none), or as in simonjegou/zero_scrolls (ready prompts of the test split)
Differs  nothing: prompts are the authors', cut at the places their rows name
"""

from collections.abc import Callable, Iterator
from dataclasses import replace

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import Example, TaskSpec
from sahub.data.tables import PROMPT, Asked
from sahub.errors import DataError
from sahub.scores import reference_check

SUBSETS = (
    "gov_report", "summ_screen_fd", "qmsum", "squality", "qasper", "narrative_qa", "quality", "musique", "space_digest",
    "book_sum_sort",
)  # fmt: skip
ENDS = ("document_end_index", "query_end_index")
MARK = "truncation_seperator"  # as their data spell it
SOURCE = ("id", "input", "output", *ENDS)


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    tables.check_subset(spec, SUBSETS, "unscored")
    return locate.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; `length` and `count_tokens` are not used.

    Rows with one id are several references of one question. With `options.unscored` rows without gold answers are
    taken, and questions may have no references: for `sahub export_zero_scrolls`.

    Raises ConfigError for an unknown subset or option, MissingFiles where there are no data, DataError for a missing
    column, a cell of another type, or rows without gold answers.
    """
    del length, count_tokens
    tables.check_subset(spec, SUBSETS, "unscored")
    rows = _merged(spec)
    return tables.examples(rows, spec, split=split, limit=limit, seed=seed, check=reference_check(spec.name))


def _merged(spec: TaskSpec) -> Iterator[Asked]:
    by_id: dict[str, Asked] = {}
    layouts = (SOURCE, (*PROMPT, "answer"))
    for number, row in enumerate(locate.read_rows(spec, *layouts, optional=("id", MARK))):
        found = _sliced(row) if row.layout == SOURCE else _ready(row, number)
        if not (found.references or spec.options.get("unscored")):
            raise DataError(
                f"{row.address}: no gold answer: task={spec.name} is scored on the validation split of tau/zero_scrolls"
            )
        key = str(found.id)
        before = by_id.get(key)
        if before is not None and (before.context, before.question) != (found.context, found.question):
            raise row.error("id", "must not stand for two questions")
        by_id[key] = found if before is None else replace(before, references=before.references + found.references)
    yield from by_id.values()


def _sliced(row: Row) -> Asked:
    """A row of the authors: one prompt, and where document and query end in it."""
    text = row.text("input", needed=True)
    document, query = (row.whole(name) for name in ENDS)
    if not 0 < document <= query <= len(text):
        raise row.error(ENDS[0], f"must lie within the input of {len(text)} characters, and before {ENDS[1]}={query}")
    return Asked(
        id=row.text("id", needed=True),
        context=text[:document],
        question=text[document:query],
        answer_prefix=text[query:].strip(),
        references=row.texts("output"),
        place=row.place("output"),
        cut_mark=row.text(MARK),
    )


def _ready(row: Row, number: int) -> Asked:
    context, question, prefix = (row.text(name) for name in PROMPT)
    return Asked(
        id=row.text("id") or str(number),
        context=context,
        question=question,
        answer_prefix=prefix,
        references=row.texts("answer"),
        place=row.place("answer"),
    )
