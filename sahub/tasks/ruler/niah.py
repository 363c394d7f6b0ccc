"""Needles in a haystack: keys bound to values, hidden in noise, in prose or among other needles."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from sahub.data import options, vocabulary
from sahub.data.examples import Question, TaskSpec
from sahub.data.fitting import Budget, Draft, Draw, filled, strewn

Haystack = Callable[[int], list[str]]  # so many lines or sentences of it

DEPTHS = [round(100 * i / 39) for i in range(40)]  # per cent of the sentences of an essay
VALUES = {vocabulary.NUMBER: vocabulary.number, vocabulary.CODE: vocabulary.code}
MOST_QUESTIONS = 1000


@dataclass(frozen=True)
class Hidden:
    """What is hidden, in what, and how it is asked for."""

    haystack: str  # noise, essay or needles
    kind: str = vocabulary.NUMBER
    key: Callable[[Random], str] = vocabulary.key
    keys: int = 1
    values: int = 1  # of each key
    together: bool = False  # one question for all keys
    questions: int = 1  # at most; one asks for one key
    why: str = "hides one needle, so it has one question"


_FOUR = "hides four keys, so it has at most four questions"

SUBSETS = {
    "niah_single_1": Hidden("noise"),
    "niah_single_2": Hidden("essay"),
    "niah_single_3": Hidden("essay", kind=vocabulary.CODE),
    "niah_multikey_1": Hidden("essay", keys=4, questions=4, why=_FOUR),
    "niah_multikey_2": Hidden("needles", questions=MOST_QUESTIONS, why=""),
    "niah_multikey_3": Hidden("needles", kind=vocabulary.CODE, key=vocabulary.code, questions=MOST_QUESTIONS, why=""),
    "niah_multivalue": Hidden("essay", values=4, why="hides the values of one key, so it has one question"),
    "niah_multiquery": Hidden("essay", keys=4, together=True, why="asks for all its keys in one question"),
}


def draws(spec: TaskSpec) -> Draw:
    """What draws an example of a needle task. Raises ConfigError, MissingFiles or DataError for a wrong option."""
    hidden = SUBSETS[spec.subset]
    options.check_names(spec, "questions", *(["essay"] if hidden.haystack == "essay" else []))
    why = hidden.why and f"{spec.subset} {hidden.why}"
    asked = options.whole(spec, "questions", 1, most=hidden.questions, why=why)
    prose = options.essay(spec) if hidden.haystack == "essay" else []

    def draw(rng: Random, budget: Budget) -> Draft:
        names = _distinct(rng, hidden.key, max(hidden.keys, asked))
        values = _distinct(rng, VALUES[hidden.kind], len(names) * hidden.values)
        pairs = {name: values[i :: len(names)] for i, name in enumerate(names)}
        together = [names] if hidden.together else [[name] for name in names[:asked]]
        questions = tuple(
            _question(str(i), group, [value for name in group for value in pairs[name]], hidden.kind, spec)
            for i, group in enumerate(together)
        )
        needles = [vocabulary.needle(name, value, hidden.kind) for name in names for value in pairs[name]]
        rng.shuffle(needles)
        build = _builder(hidden, needles, _haystack(rng, hidden, pairs, prose), rng.getrandbits(64))
        context = filled(build, budget.room(questions), budget)
        return Draft(context, questions, f"{len(needles)} needle{'s' if len(needles) > 1 else ''}")

    return draw


def _distinct(rng: Random, draw: Callable[[Random], str], count: int) -> list[str]:
    found: dict[str, None] = {}
    while len(found) < count:
        found[draw(rng)] = None
    return list(found)


def _question(name: str, keys: Sequence[str], values: Sequence[str], kind: str, spec: TaskSpec) -> Question:
    several = len(values) > 1
    return Question(
        id=name,
        text=vocabulary.question(*keys, kind=kind, several=several),
        answer_prefix=vocabulary.answer_prefix(*keys, kind=kind, several=several),
        references=tuple(values),
        max_new_tokens=spec.max_new_tokens,
    )


def _haystack(rng: Random, hidden: Hidden, pairs: dict[str, list[str]], prose: Sequence[str]) -> Haystack:
    if hidden.haystack == "noise":
        return lambda count: [vocabulary.NOISE] * count
    if hidden.haystack == "essay":
        # Upstream takes the first words of its essays and repeats them where they are too short.
        return lambda count: [prose[i % len(prose)] for i in range(count)]
    lines: list[str] = []
    line_rng = Random(rng.getrandbits(64))
    taken = {value for values in pairs.values() for value in values}

    def needles(count: int) -> list[str]:
        while len(lines) < count:
            name, value = hidden.key(line_rng), VALUES[hidden.kind](line_rng)
            # A second value for an asked key, or a second key for its value, would make the answer ambiguous.
            if name not in pairs and value not in taken:
                lines.append(vocabulary.needle(name, value, hidden.kind))
        return lines[:count]

    return needles


def _builder(hidden: Hidden, needles: Sequence[str], haystack: Haystack, seed: int) -> Callable[[int, int], str]:
    """The context with so many pieces of haystack and single sentences, its needles at random places."""

    def build(count: int, sentences: int) -> str:
        rng, total = Random(seed), count + sentences
        if hidden.haystack == "essay":
            joint = " "
            before = [total * depth // 100 for depth in sorted(rng.sample(DEPTHS, len(needles)))]
        else:
            joint = "\n"
            lines = sorted(rng.sample(range(total + len(needles)), len(needles)))
            before = [line - i for i, line in enumerate(lines)]
        pieces = strewn(haystack(count), sentences, rng)
        for place, needle in zip(reversed(before), reversed(needles), strict=True):
            pieces.insert(place, needle)
        return f"{vocabulary.instruction(hidden.kind)}\n{joint.join(pieces)}"

    return build
