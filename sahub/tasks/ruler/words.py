"""Aggregation: the common words of a numbered list, the frequent ones among made-up words.

Differs  common words are no part of any other word of the list; nouns, adjectives and frequent words, and compounds of
         them where those are too few, instead of a dictionary; no worked example where the length cannot hold it
"""

from itertools import product
from math import pi
from random import Random

from sahub.data import options, vocabulary
from sahub.data.examples import Question, TaskSpec
from sahub.data.fitting import Budget, Draft, Draw, Found, most
from sahub.errors import DataError

COMMON, FREQUENT = 10, 3
LONG = 4096 - 128  # from here on counts are those of a long list: a template takes some of the official 4096 tokens
ZETA_2 = pi**2 / 6


def common_words(spec: TaskSpec) -> Draw:
    """What draws an example of common words: ten of them many times, all others a few times."""
    options.check_names(spec)

    def draw(rng: Random, budget: Budget) -> Draft:
        needs = f"{COMMON + 1} words as often as they have to stand"
        pools = (_simple_words(), [f"{a}-{b}" for a, b in product(vocabulary.ADJECTIVES, vocabulary.CELL_GROUPS)])
        for pool in pools:
            rng.shuffle(pool)
            found, frequent, exhausted = _listed(pool, budget, spec, rng.getrandbits(64))
            question = _question(spec, vocabulary.words_question(COMMON), vocabulary.words_prefix(COMMON), frequent)
            if found is None or not exhausted:
                return Draft(found.text if found else None, (question,), needs)
        raise DataError(
            f"task={spec.name}: {budget.length} tokens need more than the {len(pools[-1])} distinct words that there "
            "are; lower max_context_length"
        )

    return draw


def _simple_words() -> list[str]:
    words = dict.fromkeys([*vocabulary.CELL_GROUPS, *vocabulary.ADJECTIVES, *vocabulary.common_words()])
    return [word for word in words if len(word) >= 3]


def _question(spec: TaskSpec, text: str, prefix: str, gold: list[str]) -> Question:
    return Question(id="0", text=text, answer_prefix=prefix, references=tuple(gold), max_new_tokens=spec.max_new_tokens)


def _split(words: list[str]) -> tuple[list[str], list[str]]:
    """The common words, none part of another word, and the others."""
    common: list[str] = []
    for word in words:
        if len(common) < COMMON and not any(word in other or other in word for other in common):
            common.append(word)
    return common, [word for word in words if not any(one in word for one in common)]


def _listed(words: list[str], budget: Budget, spec: TaskSpec, seed: int) -> tuple[Found[str] | None, list[str], bool]:
    """The list with the most words that fits, its common words, and whether there were too few words to fill it.

    The worked example is left out where the length cannot hold it.
    """
    is_long = budget.length >= LONG
    often, rarely = (30, 3) if is_long else (6, 1)
    text, prefix = vocabulary.words_question(COMMON), vocabulary.words_prefix(COMMON)
    shown, example = _worked(words, Random(seed), f"{text}\n{prefix}", is_long=is_long)
    common, others = _split([word for word in words if word not in shown])
    room = budget.room([_question(spec, text, prefix, common)])
    for opening in (f"{vocabulary.WORDS}\n{example}\n", vocabulary.WORDS):

        def build(count: int, opening: str = opening) -> str:
            drawn = common * often + others[:count] * rarely
            Random(seed).shuffle(drawn)
            return f"{opening}\n{vocabulary.numbered(drawn)}"

        found = most(build, room, budget.count, slack=budget.slack, limit=len(others))
        if found is not None and found.units:
            return found, common, found.units == len(others) and room - found.tokens > budget.slack
    return None, common, False


def _worked(words: list[str], rng: Random, asked: str, *, is_long: bool) -> tuple[set[str], str]:
    """The words of a short list, and that list with its answer."""
    often, rarely, distinct = (10, 3, 40) if is_long else (3, 1, 20)
    common, others = _split(words[: 2 * distinct])
    others = others[: distinct - COMMON]
    drawn = common * often + others * rarely
    rng.shuffle(drawn)
    return {*common, *others}, f"{vocabulary.numbered(drawn)}{asked} {vocabulary.numbered(common)}"


def made_up_words(spec: TaskSpec) -> Draw:
    """What draws an example of made-up words: Zipf frequencies, the most frequent word hidden behind dots."""
    options.check_names(spec)

    def draw(rng: Random, budget: Budget) -> Draft:
        words = {vocabulary.DOTS: None}
        while len(words) < max(FREQUENT + 2, (budget.length - 50) // 50):
            words[vocabulary.made_up(rng)] = None
        ranked, seed = list(words), rng.getrandbits(64)

        def counts(total: int) -> list[int]:
            return [int(total / (rank**2 * ZETA_2)) for rank in range(1, len(ranked) + 1)]

        def build(total: int) -> str:
            drawn = [word for word, count in zip(ranked, counts(total), strict=True) for _ in range(count)]
            Random(seed).shuffle(drawn)
            return f"{vocabulary.MADE_UP}\n{' '.join(drawn)}"

        gold = ranked[1 : 1 + FREQUENT]
        question = _question(spec, vocabulary.made_up_question(FREQUENT), vocabulary.made_up_prefix(FREQUENT), gold)
        found = most(build, budget.room([question]), budget.count, slack=budget.slack)
        if found is not None:
            _check_ranks(spec, budget, counts(found.units)[1 : 2 + FREQUENT])
        return Draft(found.text if found else None, (question,), "any made-up word")

    return draw


def _check_ranks(spec: TaskSpec, budget: Budget, counts: list[int]) -> None:
    """Raise DataError where the frequent words, or the last of them and the next word, stand equally often."""
    if len(set(counts)) < len(counts):
        raise DataError(
            f"task={spec.name}: in {budget.length} tokens the most frequent words stand {', '.join(map(str, counts))} "
            "times, so that there is no one answer; raise max_context_length"
        )
