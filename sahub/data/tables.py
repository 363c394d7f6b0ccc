"""From rows of data to examples: questions of one context together, of one split, in a seeded order."""

import json
import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sahub.data.cells import Row
from sahub.data.examples import Example, Question, TaskSpec, example_id, shuffled, split_of
from sahub.errors import ConfigError, DataError, ScoreError

log = logging.getLogger(__name__)

# Columns of a ready prompt, in the layout of the mirrors and of data sets of one's own.
PROMPT = ("context", "question", "answer_prefix")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What one row asks; the prompt is context + question + answer_prefix."""

    context: str
    question: str
    answer_prefix: str = ""
    references: tuple[Any, ...]
    id: str | None = None  # None: its number among the questions of its context
    max_new_tokens: int | None = None  # None: the task's
    metadata: Mapping[str, Any] = field(default_factory=dict)
    cut_mark: str = ""  # of its context
    place: str = ""  # of its references: file, row and column


def check_subset(spec: TaskSpec, subsets: Iterable[str], *options: str) -> None:
    """Raise ConfigError for a subset or an option that the benchmark does not have, and where it is to be generated."""
    choices = tuple(subsets)
    if spec.source == "generated":
        raise ConfigError(f"task.source=generated: {spec.name} is not generated; must be null or files")
    if spec.subset not in choices:
        raise ConfigError(f"task.subset={spec.subset}: must be one of {', '.join(choices)}")
    known = ("questions", *options)
    if unknown := [str(name) for name in spec.options if name not in known]:
        raise ConfigError(f"task.options.{unknown[0]}: {spec.name} has no such option; it has {', '.join(known)}")
    most = spec.options.get("questions")
    if most is not None and (isinstance(most, bool) or not isinstance(most, int) or most < 1):
        raise ConfigError(f"task.options.questions={most}: must be at least 1 question per context, or null for all")


def asked(
    row: Row, answers: str, *, max_new_tokens: int | None = None, metadata: Mapping[str, Any] | None = None
) -> Asked:
    """A row with a ready prompt and the column `answers`: a text or a list of texts, at least one."""
    references = row.texts(answers)
    if not references:
        raise row.error(answers, "must hold an answer")
    return Asked(
        context=row.text("context", needed=True),
        question=row.text("question"),
        answer_prefix=row.text("answer_prefix"),
        references=references,
        max_new_tokens=max_new_tokens,
        metadata=metadata or {},
        place=row.place(answers),
    )


def examples(
    rows: Iterable[Asked | str],
    spec: TaskSpec,
    *,
    split: str,
    limit: int | None,
    seed: int,
    group: Callable[[Mapping[str, Any]], str] = lambda metadata: "",
    check: Callable[[Any, Any], None] = lambda references, classes: None,
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; a row that is a text is left out: why.

    `check` raises ScoreError for references, given with the classes of a classification, that its scorer cannot use:
    DataError, with their place.
    `group` names what the benchmark groups a question by, from its metadata: each group keeps its share (a context is
    in that of its first question).

    `options.questions` bounds the questions of a context (null: all; always the first in file order).
    """
    most = spec.options.get("questions")
    contexts: dict[str, tuple[Asked, list[Question]]] = {}
    unused: list[str] = []
    for row in rows:
        if isinstance(row, str):
            unused.append(row)
            continue
        _check(row, check)
        if split_of(row.context) != split:
            continue
        _, questions = contexts.setdefault(example_id(row.context), (row, []))
        if most is None or len(questions) < most:
            questions.append(
                Question(
                    id=row.id or str(len(questions)),
                    text=row.question,
                    answer_prefix=row.answer_prefix,
                    references=row.references,
                    max_new_tokens=row.max_new_tokens or spec.max_new_tokens,
                    metadata=dict(row.metadata),
                )
            )
    if unused:
        log.info("task=%s rows_left_out=%d first: %s", spec.name, len(unused), unused[0])
    found = [
        Example(id=key, context=first.context, questions=tuple(held), cut_mark=first.cut_mark)
        for key, (first, held) in contexts.items()
    ]
    return shuffled(found, seed=seed, limit=limit, group=lambda example: group(example.questions[0].metadata))


def _check(row: Asked, check: Callable[[Any, Any], None]) -> None:
    try:
        if row.references:
            check(row.references, row.metadata.get("all_classes"))
    except ScoreError as error:
        raise DataError(f"{row.place}: {error}") from None


def masks(answer: Mapping[str, Any]) -> str:
    """The masks of a cloze as one JSON object; parquet gives every row the masks of all rows, absent ones as None."""
    return json.dumps({mask: entity for mask, entity in answer.items() if entity is not None}, ensure_ascii=False)
