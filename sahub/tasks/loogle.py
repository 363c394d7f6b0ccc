"""LooGLE: questions about long texts written after 2022, several about each.

Source   Li et al. 2023, arXiv:2311.04939; rows as in the dataset simonjegou/loogle (config = subset, split test), or as
         the authors' files hold them, a list of questions written as text in each row
Differs  rows of one context become one example; rows without a question or an answer are left out; the authors' rows
         hold no prompts: they get ours
"""

from collections.abc import Callable, Iterator

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import Example, TaskSpec
from sahub.data.prompts import prompts
from sahub.data.tables import PROMPT, Asked
from sahub.scores import reference_check

SUBSETS = ("shortdep_qa", "longdep_qa", "shortdep_cloze", "longdep_summarization")
SUMMARY = "longdep_summarization"
READY = (*PROMPT, "answer")
PAIRS = "qa_pairs"  # of the authors: [{Q: question, A: answer}, ...]


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
    authors = ("input", "output") if spec.subset == SUMMARY else ("input", PAIRS)
    rows = (asked for row in locate.read_rows(spec, READY, authors) for asked in _all_asked(row, spec))
    return tables.examples(rows, spec, split=split, limit=limit, seed=seed, check=reference_check(spec.name))


def _all_asked(row: Row, spec: TaskSpec) -> Iterator[Asked | str]:
    """What a row asks: one question, or as many as the authors' row holds."""
    if row.layout == READY:
        yield _asked(row, spec)
        return
    if spec.subset == SUMMARY:
        yield _of_authors(row, spec, "output", "", row.text("output"))
        return
    pairs = row.written_list(PAIRS)
    if not pairs:
        yield f"{row.place(PAIRS)}: no questions"
    for pair in pairs:
        question, answer = (pair.get("Q"), pair.get("A")) if isinstance(pair, dict) else (None, None)
        if not isinstance(question, str) or not isinstance(answer, str | dict):
            raise row.error(PAIRS, "must be a list of {Q: question, A: answer}")
        text = answer if isinstance(answer, str) else tables.masks(answer)
        yield _of_authors(row, spec, PAIRS, question, text)


def _of_authors(row: Row, spec: TaskSpec, column: str, question: str, answer: str) -> Asked | str:
    before, after, prefix = prompts("loogle")[spec.subset]
    context = row.text("input")
    if not (context.strip() and answer.strip() and (question.strip() or spec.subset == SUMMARY)):
        return f"{row.place(column)}: no text, question or answer"
    return Asked(
        context=before + context,
        question=after.replace("{input}", question),
        answer_prefix=prefix,
        references=(answer,),
        place=row.place(column),
    )


def _asked(row: Row, spec: TaskSpec) -> Asked | str:
    context, question, prefix = (row.text(name) for name in PROMPT)
    references = _references(row)
    # Summaries are asked for by their context: their question is an empty line.
    if not (context.strip() and references and (question.strip() or spec.subset == SUMMARY)):
        return f"{row.place('answer')}: no text, question or answer"
    place = row.place("answer")
    return Asked(context=context, question=question, answer_prefix=prefix, references=references, place=place)


def _references(row: Row) -> tuple[str, ...]:
    """The gold answers: text, a list of texts, or the masks of a cloze as one JSON object; empty ones are left out."""
    answer = row.values["answer"]
    if not isinstance(answer, dict):
        return tuple(text for text in row.texts("answer") if text.strip() != "{}")
    if not all(value is None or isinstance(value, str) for value in answer.values()):
        raise row.error("answer", "must map every mask to a text")
    found = tables.masks(answer)
    return () if found == "{}" else (found,)
