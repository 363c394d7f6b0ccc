"""Which contexts of a task choose among configurations, and which others decide on what was chosen."""

from collections.abc import Sequence
from dataclasses import replace

from sahub.data.examples import Example


def first_questions(examples: Sequence[Example], limit: int | None) -> list[Example]:
    """Contexts until `limit` questions are reached, the last one cut short."""
    kept: list[Example] = []
    left = sum(len(example.questions) for example in examples) if limit is None else limit
    for example in examples:
        if left <= 0:
            break
        questions = example.questions[:left]
        left -= len(questions)
        kept.append(replace(example, questions=questions))
    return kept


def divided(examples: Sequence[Example], choosing: int, deciding: int) -> tuple[list[Example], list[Example]]:
    """Contexts of up to `choosing` questions, and `deciding` other contexts, each with its first question.

    Where there are too few, those that decide come first, up to half of all. No text is in both.
    """
    chosen = first_questions(examples, choosing)
    if deciding:
        distinct = len({example.context for example in examples})
        chosen = chosen[: max(distinct - deciding, (distinct + 1) // 2)]
    seen = {example.context for example in chosen}
    others = {one.context: one for one in reversed(examples[len(chosen) :]) if one.context not in seen}
    fresh = list(reversed(others.values()))[:deciding]
    return chosen, [replace(example, questions=example.questions[:1]) for example in fresh]
