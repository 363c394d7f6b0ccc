"""LooGLE: questions about long texts written after 2022, several about each.

Source   Li et al. 2023, arXiv:2311.04939; rows as in the dataset simonjegou/loogle (config = subset, split test)
Differs  rows of one context become one example; rows without a question or an answer are left out
"""

import json
import logging
from collections.abc import Callable
from typing import Any

from sahub import datafiles
from sahub.errors import ConfigError, DataError
from sahub.examples import Example, Question, TaskSpec, example_id, shuffled, split_of

log = logging.getLogger(__name__)

SUBSETS = ("shortdep_qa", "longdep_qa", "shortdep_cloze", "longdep_summarization")
COLUMNS = ("context", "question", "answer_prefix", "answer")


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    _check(spec)
    return datafiles.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; `length` and `count_tokens` are not used.

    `options.questions` bounds the questions of a context (null: all; always the first in file order).

    Raises ConfigError for an unknown subset or option, MissingFiles where there are no data, DataError for a missing
    column or a value that is not text.
    """
    _check(spec)
    most = spec.options.get("questions")
    contexts: dict[str, tuple[str, list[Question]]] = {}
    dropped = 0
    for number, row in enumerate(datafiles.read_rows(spec, COLUMNS)):
        context, question, prefix = (_text(row, name, f"task={spec.name}: row {number}") for name in COLUMNS[:3])
        references = _references(row["answer"], f"task={spec.name}: row {number}")
        # Summaries are asked for by their context: their question is an empty line.
        asked = question.strip() or spec.subset == "longdep_summarization"
        if not (context.strip() and asked and references):
            dropped += 1
            continue
        if split_of(context) != split:
            continue
        _, questions = contexts.setdefault(example_id(context), (context, []))
        if most is None or len(questions) < most:
            questions.append(
                Question(
                    id=str(len(questions)),
                    text=question,
                    answer_prefix=prefix,
                    references=references,
                    max_new_tokens=spec.max_new_tokens,
                )
            )
    if dropped:
        log.info("task=%s rows_left_out=%d reason=no_question_or_answer", spec.name, dropped)
    examples = [Example(id=key, context=text, questions=tuple(found)) for key, (text, found) in contexts.items()]
    return shuffled(examples, seed=seed, limit=limit)


def _check(spec: TaskSpec) -> None:
    if spec.subset not in SUBSETS:
        raise ConfigError(f"task.subset={spec.subset}: must be one of {', '.join(SUBSETS)}")
    most = spec.options.get("questions")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise ConfigError(f"task.options.questions={most}: must be at least 1 question per context, or null for all")


def _text(row: dict[str, Any], name: str, address: str) -> str:
    value = "" if row[name] is None else row[name]
    if not isinstance(value, str):
        raise DataError(f"{address}: column {name} is a {type(value).__name__}: must be text")
    return value


def _references(answer: Any, address: str) -> tuple[str, ...]:
    """The gold answers: text, a list of texts, or the masks of a cloze as one JSON object; empty ones are left out."""
    if isinstance(answer, dict):
        # Parquet gives every row the masks of all rows, absent ones as None.
        answer = json.dumps({mask: entity for mask, entity in answer.items() if entity is not None}, ensure_ascii=False)
    answers = answer if isinstance(answer, list) else [answer]
    if not all(item is None or isinstance(item, str | int | float) for item in answers):
        raise DataError(f"{address}: column answer is {str(answer)[:80]!r}: must be text, a list of texts or an object")
    return tuple(text for text in (str(item) for item in answers if item is not None) if text.strip() not in ("", "{}"))
