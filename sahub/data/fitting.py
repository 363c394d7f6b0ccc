"""Fitting a generated text to a number of tokens."""

import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from random import Random
from typing import Generic, NamedTuple, TypeVar

from sahub.data import vocabulary
from sahub.data.examples import Example, Question, TaskSpec, example_id, split_of
from sahub.errors import DataError

log = logging.getLogger(__name__)
Count = Callable[[str], int]
Built = TypeVar("Built")  # a text, or one with what depends on it

ATTEMPTS = 256  # draws until one is of a split: each is with a chance of at least a quarter
PATIENCE = 64  # examples that do not fit, before any that does: then it is the length that is too short
GUESSES = 8  # informed ones, before halving: on evenly filled texts two or three are enough


@dataclass(frozen=True)
class Budget:
    """The tokens of a prompt with its answer, and what counts them."""

    length: int
    count: Count

    @property
    def slack(self) -> int:
        """A text this much shorter than it may be is as good as one that fits exactly: 1 %."""
        return self.length // 100

    def room(self, questions: Sequence[Question]) -> int:
        """What is left for the context beside the longest question and its answer."""
        return self.length - max(self.count(f"{q.text}\n{q.answer_prefix}") + q.max_new_tokens for q in questions)


class Draft(NamedTuple):
    """A drawn example: `context` is None where it cannot hold what it `needs`."""

    context: str | None
    questions: tuple[Question, ...]
    needs: str


Draw = Callable[[Random, Budget], Draft]


class Unfit(DataError):
    """An example that its length cannot hold."""


def example_of(spec: TaskSpec, drawn: Draft, budget: Budget) -> Example:
    """The drawn example. Raises Unfit where its context cannot hold what it needs."""
    if drawn.context is None:
        tail = max(budget.count(f"{question.text}\n{question.answer_prefix}") for question in drawn.questions)
        answer = max(question.max_new_tokens for question in drawn.questions)
        raise Unfit(
            f"task={spec.name}: {budget.length} tokens cannot hold the instruction, {drawn.needs}, the question "
            f"({tail} tokens) and {answer} tokens of answer; raise max_context_length"
        )
    return Example(id=example_id(drawn.context), context=drawn.context, questions=drawn.questions)


def of_split(draw: Callable[[Random], Draft], spec: TaskSpec, budget: Budget, split: str, name: str) -> Example:
    """The first of the drawn examples that is of the split; `name` seeds the draws. Raises DataError."""
    for attempt in range(ATTEMPTS):
        found = example_of(spec, draw(Random(f"{name}/{attempt}")), budget)
        if split_of(found.context) == split:
            return found
    raise DataError(f"task={spec.name}: none of {ATTEMPTS} contexts is of the {split} split; give another search.seed")


def fitting(makers: Iterable[Callable[[], Example]], spec: TaskSpec, wanted: int, split: str) -> list[Example]:
    """The first examples of the split that can be made; those that do not fit are passed over and counted.

    Raises Unfit where none of the first fits.
    """
    found: list[Example] = []
    unfit: list[Unfit] = []
    for make in makers:
        try:
            example = make()
        except Unfit as error:
            unfit.append(error)
            if len(unfit) == PATIENCE and not found:
                raise
            continue
        if split_of(example.context) == split:
            found.append(example)
        if len(found) == wanted:
            break
    if unfit and not found:
        raise unfit[0]
    if unfit:
        log.warning("%s; passed over: %d such examples, others are taken", unfit[0], len(unfit))
    return found


class Found(NamedTuple, Generic[Built]):
    """A text of so many units, and its tokens."""

    units: int
    text: Built
    tokens: int


def most(
    build: Callable[[int], Built],
    room: int,
    count: Callable[[Built], int],
    *,
    slack: int = 0,
    limit: int | None = None,
) -> Found[Built] | None:
    """The longest text of at most `room` tokens, or one at most `slack` shorter; None where the shortest is longer.

    `build(n)` is the text of n units, at most `limit` of them. Texts are counted whole, because tokenizers merge across
    lines; the next number to try follows from the tokens per unit so far.
    """
    text = build(0)
    best = Found(0, text, count(text))
    if best.tokens > room:
        return None
    empty, guess, tried = best.tokens, max(8, room // 256), 0
    over = 1 + (4 * room if limit is None else limit)  # no number from here on fits; four units to a token are too many
    while over - best.units > 1 and room - best.tokens > slack:
        if tried >= GUESSES:
            guess = (best.units + over) // 2
        guess, tried = min(max(guess, best.units + 1), over - 1), tried + 1
        text = build(guess)
        tokens = count(text)
        if tokens <= room:
            best = Found(guess, text, tokens)
        else:
            over = guess
        per_unit = max((tokens - empty) / guess, 0.25)
        guess += int((room - slack / 2 - tokens) // per_unit)
    return best


def filled(build: Callable[[int, int], str], room: int, budget: Budget) -> str | None:
    """The text of the most units that fits, what is left filled with single sentences: `build(units, sentences)`."""
    whole = most(lambda units: build(units, 0), room, budget.count, slack=budget.slack)
    if whole is None:
        return None
    if room - whole.tokens <= budget.slack:
        return whole.text
    rest = most(lambda sentences: build(whole.units, sentences), room, budget.count)
    return whole.text if rest is None else rest.text


def strewn(pieces: Sequence[str], sentences: int, rng: Random) -> list[str]:
    """The pieces in their order, with so many single sentences of noise among them at random places."""
    noise, mixed = vocabulary.sentences(vocabulary.NOISE), list(pieces)
    for number in range(sentences):
        mixed.insert(rng.randint(0, len(mixed)), noise[number % len(noise)])
    return mixed
