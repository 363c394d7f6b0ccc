"""RULER's needle-in-a-haystack tasks, generated at any length.

Source   Hsieh et al. 2024, arXiv:2404.06654; parameters of its synthetic tasks, our own wording
Differs  a prompt is fitted by one exact search per sample, which never overflows and cannot loop
"""

from collections.abc import Callable
from dataclasses import dataclass
from itertools import accumulate
from random import Random

from sahub import wording
from sahub.errors import ConfigError, DataError
from sahub.examples import Example, Question, TaskSpec, example_id, split_of


@dataclass(frozen=True)
class Haystack:
    """What stands around the asked needle: `filler` draws one line; `distractors` says that lines are needles."""

    filler: Callable[[Random], str]
    distractors: bool


def _distractor(rng: Random) -> str:
    return wording.needle(wording.key(rng), wording.number(rng))


HAYSTACKS = {
    "niah_single_1": Haystack(lambda _: wording.NOISE, distractors=False),
    "niah_multikey_2": Haystack(_distractor, distractors=True),
}


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """Draw examples of `length` tokens (prompt with answer prefix plus the tokens to generate).

    `limit` contexts (None: `options.num_examples`) whose hash falls into `split`; one seed, one set of examples.

    Raises ConfigError for an unknown subset or option, DataError where the length cannot hold one needle.
    """
    if spec.subset not in HAYSTACKS:
        raise ConfigError(f"task.subset={spec.subset}: not a generated RULER task; choices: {', '.join(HAYSTACKS)}")
    wanted = int(spec.options["num_examples"]) if limit is None else limit
    found: list[Example] = []
    # A quarter of all contexts is for search: 64 draws per wanted example cannot run short by chance.
    for index in range(64 * wanted):
        rng = Random(f"{seed}/{spec.subset}/{length}/{index}")
        example = _draw(spec, rng, length=length, count_tokens=count_tokens)
        if split_of(example.context) == split:
            found.append(example)
            if len(found) == wanted:
                break
    return found


def _draw(spec: TaskSpec, rng: Random, *, length: int, count_tokens: Callable[[str], int]) -> Example:
    haystack, asked = HAYSTACKS[spec.subset], int(spec.options.get("questions", 1))
    if asked > 1 and not haystack.distractors:
        raise ConfigError(f"task.options.questions={asked}: {spec.subset} hides one needle, so it has one question")
    names: list[str] = []
    while len(names) < asked:
        name = wording.key(rng)
        if name not in names:
            names.append(name)
    values = [wording.number(rng) for _ in names]
    questions = tuple(
        Question(
            id=str(i),
            text=wording.question(name),
            answer_prefix=wording.answer_prefix(name),
            references=(value,),
            max_new_tokens=spec.max_new_tokens,
        )
        for i, (name, value) in enumerate(zip(names, values, strict=True))
    )
    needles = [wording.needle(name, value) for name, value in zip(names, values, strict=True)]
    tail = max(count_tokens(f"{q.text}\n{q.answer_prefix}") for q in questions)
    room = length - spec.max_new_tokens - tail
    context = _fit(rng, haystack, dict(zip(names, needles, strict=True)), room, count_tokens)
    if context is None:
        raise DataError(
            f"task={spec.benchmark}/{spec.subset}: {length} tokens cannot hold the instruction, {asked} needle(s), the "
            f"question ({tail} tokens) and {spec.max_new_tokens} tokens of answer; raise max_context_length"
        )
    return Example(id=example_id(context), context=context, questions=questions)


def _fit(
    rng: Random, haystack: Haystack, hidden: dict[str, str], room: int, count_tokens: Callable[[str], int]
) -> str | None:
    """The longest context of at most `room` tokens with the `hidden` needles (by key); None where these do not fit."""
    needles = list(hidden.values())
    fixed = count_tokens("\n".join([wording.INSTRUCTION, *needles]))
    if fixed > room:
        return None
    order = Random(rng.random())
    lines: list[str] = []
    sizes: list[int] = []
    left = room - fixed
    while left > 0:
        line = haystack.filler(rng)
        if haystack.distractors and any(f" {name} " in line for name in hidden):
            continue  # a second value for an asked key would make the answer ambiguous
        lines.append(line)
        sizes.append(count_tokens(f"\n{line}"))
        left -= sizes[-1]
    # Token counts of lines add up to the count of the text except where a tokenizer merges across lines.
    keep = sum(total <= room - fixed for total in accumulate(sizes))
    places = sorted(order.sample(range(keep + len(needles)), len(needles)))
    while True:
        body = lines[:keep]
        for place, text in zip(places, needles, strict=True):
            body.insert(min(place, len(body)), text)
        context = "\n".join([wording.INSTRUCTION, *body])
        if count_tokens(context) <= room or keep == 0:
            return context if count_tokens(context) <= room else None
        keep -= 1
