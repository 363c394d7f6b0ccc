"""Variable tracking: chains of assignments in order among noise, after a worked example."""

from collections.abc import Sequence
from itertools import pairwise
from random import Random

from sahub.data import options, vocabulary
from sahub.data.examples import Question, TaskSpec
from sahub.data.fitting import Budget, Draft, Draw, filled, most, strewn

EXAMPLE = 500  # tokens of the worked example, at most; no more than a third of the room either


def draws(spec: TaskSpec) -> Draw:
    """What draws an example of variable tracking. Raises ConfigError for a wrong option."""
    options.check_names(spec, "num_chains", "num_hops")
    num_chains = options.whole(spec, "num_chains", 1, most=1000)
    num_hops = options.whole(spec, "num_hops", 4, most=1000)

    def draw(rng: Random, budget: Budget) -> Draft:
        values = [str(value) for value in rng.sample(range(10000, 99999), num_chains + 1)]
        [shown] = _chains(rng, values[:1], num_hops, letters=3)
        chains = _chains(rng, values[1:], num_hops, letters=5)
        (value, *names), seed = chains[0], rng.getrandbits(64)
        question = Question(
            id="0",
            text=vocabulary.variables_question(value, len(names)),
            answer_prefix=vocabulary.variables_prefix(value, len(names)),
            references=tuple(names),
            max_new_tokens=spec.max_new_tokens,
        )
        room = budget.room([question])
        opening = vocabulary.VARIABLES + _worked(shown, rng.getrandbits(64), min(EXAMPLE, room // 3), budget)

        def build(noise: int, sentences: int) -> str:
            order = Random(seed)
            return "\n".join([opening, *strewn(_lines(chains, noise, order), sentences, order)])

        return Draft(
            filled(build, room, budget), (question,), f"a worked example and {num_chains * len(names)} statements"
        )

    return draw


def _chains(rng: Random, values: Sequence[str], hops: int, *, letters: int) -> list[list[str]]:
    """A value and the names it is copied through, for every value; all names distinct."""
    names: dict[str, None] = {}
    while len(names) < len(values) * (hops + 1):
        names[vocabulary.letters(rng, letters)] = None
    every = list(names)
    return [[value, *every[i * (hops + 1) : (i + 1) * (hops + 1)]] for i, value in enumerate(values)]


def _lines(chains: Sequence[Sequence[str]], noise: int, rng: Random) -> list[str]:
    """The statements of every chain in their order, at random places among lines of noise."""
    waiting = [iter([vocabulary.assignment(a, b) for a, b in pairwise(chain)]) for chain in chains]
    turns = [i for i, chain in enumerate(chains) for _ in chain[1:]] + [-1] * noise
    rng.shuffle(turns)
    return [vocabulary.NOISE if i < 0 else next(waiting[i]) for i in turns]


def _worked(chain: Sequence[str], seed: int, room: int, budget: Budget) -> str:
    """A short task with its answer; without any noise where the room is too small for more."""
    value, *names = chain
    asked = "\n".join(form(value, len(names)) for form in (vocabulary.variables_question, vocabulary.variables_prefix))

    def build(noise: int) -> str:
        return "\n".join(["", *_lines([chain], noise, Random(seed))]) + f"{asked} {' '.join(names)}\n"

    found = most(build, room, budget.count)
    return build(0) if found is None else found.text
