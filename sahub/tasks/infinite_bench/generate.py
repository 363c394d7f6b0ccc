"""InfiniteBench's synthetic tasks, generated at any length: keys in noise, a JSON object, arithmetic, functions.

Labels are texts: one each, but for math_calc one per operation.

Source   Zhang et al. 2024, arXiv:2402.13718; its parameters, our own wording
Differs  counts of lines, pairs, numbers and functions follow from the length; what is swept (the depth of a key, the
         position of a pair, the question, the number of calls) is swept in strides, so that few examples are spread
         over all of it; every answer has a prefix
"""

from collections.abc import Callable
from functools import partial

from sahub.data import options
from sahub.data.examples import Example, TaskSpec
from sahub.data.fitting import PATIENCE, Budget, fitting, of_split
from sahub.errors import ConfigError
from sahub.tasks.infinite_bench import generate_reasoning, generate_retrieval
from sahub.tasks.infinite_bench.generate_prompt import Draws

# How many examples there are officially, and what draws the one of a place in the sweep.
SUBSETS: dict[str, tuple[int, Draws]] = {
    "passkey": (590, generate_retrieval.passkey),
    "number_string": (590, generate_retrieval.number_string),
    "kv_retrieval": (500, generate_retrieval.kv_retrieval),
    "math_find": (350, generate_reasoning.math_find),
    "math_calc": (50, generate_reasoning.math_calc),
    "code_run": (400, generate_reasoning.code_run),
}


def check(spec: TaskSpec) -> None:
    """Raise ConfigError for a subset that is not generated, or an option that generated tasks do not read."""
    if spec.subset not in SUBSETS:
        raise ConfigError(
            f"task.subset={spec.subset}: is not generated, so task.path or task.dataset must say where its data are; "
            f"generated: {', '.join(SUBSETS)}"
        )
    options.check_names(spec)
    options.whole(spec, "num_examples", SUBSETS[spec.subset][0], most=10**6)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """Draw examples of `length` tokens (context, question, answer prefix and the tokens to generate).

    `limit` contexts (None: `options.num_examples`) whose hash falls into `split`; one seed, one set of examples, and
    fewer of them are the first of more.

    Raises ConfigError as `check`, DataError where the length cannot hold the shortest example.
    """
    check(spec)
    official, draws = SUBSETS[spec.subset]
    wanted = options.whole(spec, "num_examples", official, most=10**6) if limit is None else limit
    budget = Budget(length, count_tokens)

    def make(place: int) -> Example:
        return of_split(draws(spec, budget, place), spec, budget, split, f"{seed}/{spec.name}/{length}/{place}")

    return fitting((partial(make, place) for place in range(2 * wanted + PATIENCE)), spec, wanted, split)
