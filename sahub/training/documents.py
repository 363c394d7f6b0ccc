"""Training documents: a context in the words of a task, then many questions, each followed by its answer.

Many questions on one context are more to learn from than one. Answers of several values stand in random order, so that
any order is as good as another.
"""

from collections.abc import Callable, Iterator
from itertools import pairwise
from random import Random
from typing import NamedTuple

from sahub.data import vocabulary

Count = Callable[[str], int]


class Asked(NamedTuple):
    """A question with its answer prefix, and the answer."""

    text: str
    answer: str


Document = tuple[str, Iterator[Asked]]


def _filled(rng: Random, room: int, count: Count, line: Callable[[], str]) -> list[str]:
    """Lines until `room` tokens are full, at least one."""
    lines = [line()]
    size = count(lines[0])
    while size < room:
        lines.append(line())
        size += count(lines[-1])
    return lines


def _filler(rng: Random) -> tuple[Callable[[], str], str]:
    """What draws the next piece of haystack, and what joins the pieces."""
    kind = rng.choice(("noise", "grammar", "essay", "essay"))
    if kind == "noise":
        return lambda: vocabulary.NOISE, "\n"
    if kind == "grammar":
        return lambda: vocabulary.prose(rng), rng.choice((" ", "\n"))
    sentences = vocabulary.sentences(vocabulary.essay())
    start = rng.randrange(len(sentences))
    stream = (sentences[(start + i) % len(sentences)] for i in range(10**9))
    return lambda: next(stream), " "


def needles(rng: Random, room: int, count: Count) -> Document:
    """Needles from rare to every sentence; questions for one value, for all values of a key, for several keys."""
    kind = rng.choice((vocabulary.NUMBER, vocabulary.NUMBER, vocabulary.NUMBER, vocabulary.CODE))
    value = vocabulary.number if kind == vocabulary.NUMBER else vocabulary.code
    name = vocabulary.code if kind == vocabulary.CODE and rng.random() < 0.5 else vocabulary.key
    density = rng.choice((0.02, 0.1, 0.3, 1.0, 1.0))
    many = rng.choice((0.0, 0.0, 0.3, 1.0))  # share of keys with several values
    filler, joint = _filler(rng)
    if density == 1.0:
        joint = "\n"
    pairs: dict[str, list[str]] = {}
    waiting: list[str] = []

    def line() -> str:
        if pairs and rng.random() >= density:
            return filler()
        if waiting and rng.random() < 0.5:
            again = waiting.pop(rng.randrange(len(waiting)))
            pairs[again].append(value(rng))
            return vocabulary.needle(again, pairs[again][-1], kind)
        new = name(rng)
        while new in pairs:
            new = name(rng)
        pairs[new] = [value(rng)]
        if rng.random() < many:
            waiting.extend([new] * rng.choice((1, 2, 3, 3)))
        return vocabulary.needle(new, pairs[new][0], kind)

    text = joint.join(_filled(rng, room, count, line))

    return f"{vocabulary.instruction(kind)}\n{text}", _questions(rng, pairs, kind)


def _questions(rng: Random, pairs: dict[str, list[str]], kind: str) -> Iterator[Asked]:
    order = rng.sample(list(pairs), len(pairs))
    while order:
        names = [order.pop()]
        values = pairs[names[0]]
        if len(values) == 1 and rng.random() < 0.2:
            alone = [other for other in order if len(pairs[other]) == 1]
            names += alone[: rng.choice((1, 2, 3, 3))]
        several = len(names) > 1 or len(values) > 1
        prompt = "\n".join(
            form(*names, kind=kind, several=several) for form in (vocabulary.question, vocabulary.answer_prefix)
        )
        if several:
            said = [(name, one) for name in names for one in rng.sample(pairs[name], len(pairs[name]))]
            yield Asked(prompt, ",".join(vocabulary.item(*pair) for pair in said))
        else:
            yield Asked(prompt, f" {values[0]}")


def several_values(rng: Random, room: int, count: Count) -> Document:
    """Keys with two to four values each, most with four, shuffled; alone or in a haystack. All values are asked for."""
    kind = rng.choice((vocabulary.NUMBER, vocabulary.NUMBER, vocabulary.NUMBER, vocabulary.NUMBER, vocabulary.CODE))
    value = vocabulary.number if kind == vocabulary.NUMBER else vocabulary.code
    filler, joint = _filler(rng)
    share = rng.choice((0.1, 0.3, 0.6, 1.0))  # of the room: needles
    facts: list[tuple[str, str]] = []
    names: set[str] = set()
    size = 0
    while size < share * room:
        name = vocabulary.key(rng)
        if name not in names:
            names.add(name)
            facts += [(name, value(rng)) for _ in range(rng.choice((2, 3, 4, 4, 4)))]
            size = len(facts) * count(vocabulary.needle(*facts[-1], kind))
    hay = [] if size >= room else _filled(rng, room - size, count, filler)
    rng.shuffle(facts)
    pairs: dict[str, list[str]] = {}
    places = sorted(rng.sample(range(len(hay) + len(facts)), len(facts)))
    joint = joint if hay else "\n"
    for place, (name, one) in zip(places, facts, strict=True):
        pairs.setdefault(name, []).append(one)
        hay.insert(place, vocabulary.needle(name, one, kind))
    return f"{vocabulary.instruction(kind)}\n{joint.join(hay)}", _questions(rng, pairs, kind)


def variables(rng: Random, room: int, count: Count) -> Document:
    """Chains of assignments in order among noise; half of the documents begin with a worked example."""
    opening = vocabulary.VARIABLES
    if room > 300 and rng.random() < 0.5:
        text, asked = _chains(rng, rng.randint(40, 400), count, names=3, most=1)
        shown = next(asked)
        opening += f"\n{text}{shown.text}{shown.answer}\n"
    text, asked = _chains(rng, room - count(opening), count, names=5, most=rng.choice((1, 3, 10)))
    return f"{opening}\n{text}", asked


def _chains(rng: Random, room: int, count: Count, *, names: int, most: int) -> Document:
    chains: list[list[str]] = []
    used: set[str] = set()
    for _ in range(rng.randint(1, most)):
        if room < 70 * (len(chains) + 1) and chains:
            break
        chain = [str(rng.randint(10000, 99998))]
        while len(chain) < rng.choice((5, 6, 6, 6)):
            new = vocabulary.letters(rng, names)
            if new not in used:
                chain.append(new)
                used.add(new)
        chains.append(chain)
    statements = [[vocabulary.assignment(a, b) for a, b in pairwise(chain)] for chain in chains]
    size = sum(count(text) for chain in statements for text in chain)
    noise = max(0, (room - size) // (count(vocabulary.NOISE) + 1))
    turns = [i for i, chain in enumerate(statements) for _ in chain] + [-1] * noise
    rng.shuffle(turns)
    text = "\n".join(vocabulary.NOISE if i < 0 else statements[i].pop(0) for i in turns)

    def asked() -> Iterator[Asked]:
        for value, *held in rng.sample(chains, len(chains)):
            forms = (vocabulary.variables_question, vocabulary.variables_prefix)
            yield Asked("\n".join(form(value, len(held)) for form in forms), f" {' '.join(held)}")

    return text, asked()


def _counted(rng: Random, room: int, count: Count, *, common: int, often: int, rare: int) -> Document:
    words = list(dict.fromkeys([*vocabulary.CELL_GROUPS, *vocabulary.ADJECTIVES, *vocabulary.common_words()]))
    rng.shuffle(words)
    frequent = words[:common]
    drawn = frequent * often
    for word in words[common:]:
        if 4.1 * (len(drawn) + rare) > room:  # tokens of one entry
            break
        drawn += [word] * rare
    rng.shuffle(drawn)

    def asked() -> Iterator[Asked]:
        text = f"{vocabulary.words_question(common)}\n{vocabulary.words_prefix(common)}"
        yield Asked(text, f" {vocabulary.numbered(rng.sample(frequent, common))}")

    return vocabulary.numbered(drawn), asked()


def common_words(rng: Random, room: int, count: Count) -> Document:
    """Ten (fewer in short texts) common words in a numbered list, mostly after a worked example."""
    opening = vocabulary.WORDS
    if room > 450 and rng.random() < 0.7:
        text, asked = _counted(rng, 160, count, common=10, often=3, rare=1)
        shown = next(asked)
        opening += f"\n{text}{shown.text}{shown.answer}\n"
    common = 10 if room > 450 else rng.randint(2, 5)
    text, asked = _counted(rng, room - count(opening), count, common=common, often=6, rare=1)
    return f"{opening}\n{text}", asked


def made_up_words(rng: Random, room: int, count: Count) -> Document:
    """Words of random letters with Zipf frequencies, the most frequent hidden behind dots."""
    words = [vocabulary.DOTS, *dict.fromkeys(vocabulary.made_up(rng) for _ in range(20))]
    total = max(20, int(room / 4.5))
    drawn = [word for rank, word in enumerate(words, 1) for _ in range(int(total * rank**-2.0 / 1.6449))]
    rng.shuffle(drawn)

    def asked() -> Iterator[Asked]:
        text = f"{vocabulary.made_up_question(3)}\n{vocabulary.made_up_prefix(3)}"
        yield Asked(text, f" {', '.join(words[1:4])}")

    return f"{vocabulary.MADE_UP}\n{' '.join(drawn)}", asked()


SHARES: dict[Callable[[Random, int, Count], Document], tuple[float, int]] = {  # share, least room in tokens
    needles: (0.52, 0),
    several_values: (0.28, 0),
    variables: (0.12, 0),
    common_words: (0.05, 0),
    made_up_words: (0.03, 400),
}


def any_kind(rng: Random, room: int) -> Callable[[Random, int, Count], Document]:
    """What draws the next document of `room` tokens."""
    kinds = [kind for kind, (_, least) in SHARES.items() if room >= least]
    (kind,) = rng.choices(kinds, weights=[SHARES[kind][0] for kind in kinds])
    return kind
