"""Retrieval: a key hidden at a depth of a noisy text, and the value of a key of a large JSON object."""

import json
from collections.abc import Callable
from random import Random
from string import digits

from sahub.data import vocabulary
from sahub.data.examples import TaskSpec
from sahub.data.fitting import Budget, Draft, filled, strewn
from sahub.tasks.infinite_bench.generate_prompt import Prompt, fitted, question, swept

DEPTHS = 59  # from before the first line of filler to behind the last one
POSITIONS = 500  # of the asked pair, from the first on

KEY, SEQUENCE = "pass key", "sequence of digits"
OBJECT = "Remember which value belongs to which key of the following JSON object. One of them will be asked for."


def passkey(spec: TaskSpec, budget: Budget, place: int) -> Callable[[Random], Draft]:
    """A key of five digits, stated twice in one line."""
    return _hidden(spec, budget, place, KEY, lambda rng: "".join(rng.choices(digits, k=5)))


def number_string(spec: TaskSpec, budget: Budget, place: int) -> Callable[[Random], Draft]:
    """The same with ten digits, of which five repeat their neighbour."""
    return _hidden(spec, budget, place, SEQUENCE, doubled_digits)


def doubled_digits(rng: Random) -> str:
    """Five random digits; then, five times, one of the digits so far is written once more beside itself."""
    found = rng.choices(digits, k=5)
    for _ in range(5):
        at = rng.randrange(len(found))
        found.insert(at, found[at])
    return "".join(found)


def _hidden(
    spec: TaskSpec, budget: Budget, place: int, name: str, value_of: Callable[[Random], str]
) -> Callable[[Random], Draft]:
    depth = swept(place, DEPTHS)

    def draw(rng: Random) -> Draft:
        value, seed = value_of(rng), rng.getrandbits(64)
        asked = question(spec, f"What is the {name} in the text above?", f"The {name} is:", [value])

        def build(lines: int, sentences: int) -> str:
            pieces = strewn([vocabulary.NOISE] * lines, sentences, Random(seed))
            line = f"The {name} is {value}. Remember it. {value} is the {name}."
            pieces.insert(len(pieces) * depth // (DEPTHS - 1), line)
            return "\n".join([f"A {name} is hidden in the following text. Find it and remember it.", *pieces])

        return Draft(filled(build, budget.room([asked]), budget), (asked,), f"the line with the {name}")

    return draw


def kv_retrieval(spec: TaskSpec, budget: Budget, place: int) -> Callable[[Random], Draft]:
    """Pairs of uuids as one JSON object, the asked one at a position that moves evenly from the first on."""
    position = swept(place, POSITIONS)

    def draw(rng: Random) -> Draft:
        pairs: dict[str, str] = {}

        def build(more: int) -> Prompt:
            while len(pairs) < 1 + more:
                pairs[vocabulary.code(rng)] = vocabulary.code(rng)
            held = dict(list(pairs.items())[: 1 + more])
            key = list(held)[position * len(held) // POSITIONS]
            asked = question(
                spec, f'What is the value of the key "{key}" in the object above?', "The value is:", [held[key]]
            )
            return Prompt(f"{OBJECT}\n{json.dumps(held)}", asked)

        return fitted(build, budget, "a pair of uuids")

    return draw
