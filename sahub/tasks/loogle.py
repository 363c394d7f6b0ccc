"""LooGLE: questions about long texts written after 2022, several about each.

Source   Li et al. 2023, arXiv:2311.04939; rows as in the dataset simonjegou/loogle (config = subset, split test)
Differs  rows of one context become one example; rows without a question or an answer are left out
"""

from collections.abc import Callable

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import Example, TaskSpec
from sahub.data.tables import PROMPT, Asked

SUBSETS = ("shortdep_qa", "longdep_qa", "shortdep_cloze", "longdep_summarization")


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    tables.check_subset(spec, SUBSETS)
    return locate.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; `length` and `count_tokens` are not used.

    Raises ConfigError for an unknown subset or option, MissingFiles where there are no data, DataError for a missing
    column or a cell that is not text.
    """
    del length, count_tokens
    tables.check_subset(spec, SUBSETS)
    rows = (_asked(row, spec) for row in locate.read_rows(spec, (*PROMPT, "answer")))
    return tables.examples(rows, spec, split=split, limit=limit, seed=seed)


def _asked(row: Row, spec: TaskSpec) -> Asked | None:
    context, question, prefix = (row.text(name) for name in PROMPT)
    references = _references(row)
    # Summaries are asked for by their context: their question is an empty line.
    needs_question = spec.subset != "longdep_summarization"
    if not (context.strip() and references and (question.strip() or not needs_question)):
        return None
    return Asked(context=context, question=question, answer_prefix=prefix, references=references)


def _references(row: Row) -> tuple[str, ...]:
    """The gold answers: text, a list of texts, or the masks of a cloze as one JSON object; empty ones are left out."""
    answer = row.values["answer"]
    if not isinstance(answer, dict):
        return tuple(text for text in row.texts("answer") if text.strip() != "{}")
    if not all(value is None or isinstance(value, str) for value in answer.values()):
        raise row.error("answer", "must map every mask to a text")
    found = tables.masks(answer)
    return () if found == "{}" else (found,)
