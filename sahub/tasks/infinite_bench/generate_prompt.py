"""A generated context with its question, as long as a budget allows."""

from collections.abc import Callable, Sequence
from math import gcd
from random import Random
from typing import NamedTuple

from sahub.data.examples import Question, TaskSpec
from sahub.data.fitting import Budget, Draft, most

# What draws an example of a task: given the place of the example in what the task sweeps.
Draws = Callable[[TaskSpec, Budget, int], Callable[[Random], Draft]]


class Prompt(NamedTuple):
    """A context and the question about it."""

    context: str
    question: Question


def question(
    spec: TaskSpec, text: str, prefix: str, gold: Sequence[str], *, max_new_tokens: int | None = None
) -> Question:
    """The one question of an example; its answer has the task's tokens, or `max_new_tokens`."""
    return Question(
        id="0",
        text=f"\n{text}",
        answer_prefix=prefix,
        references=tuple(gold),
        max_new_tokens=max_new_tokens or spec.max_new_tokens,
    )


def fitted(build: Callable[[int], Prompt], budget: Budget, needs: str) -> Draft:
    """The prompt of the most units that fits: `build(n)` has n more than the shortest."""

    def tokens(prompt: Prompt) -> int:
        return budget.count(prompt.context) + budget.length - budget.room([prompt.question])

    found = most(build, budget.length, tokens, slack=budget.slack)
    prompt = build(0) if found is None else found.text
    return Draft(None if found is None else prompt.context, (prompt.question,), needs)


def swept(place: int, steps: int) -> int:
    """Where the example of a place stands among so many steps: each step once in a round, early ones spread out.

    A stride next to the golden section of the steps, and prime to them.
    """
    stride = next(stride for stride in range(round(0.618 * steps), 0, -1) if gcd(stride, steps) == 1)
    return place * stride % steps
