"""RULER's tasks, generated at any length: needles, variables, words, questions; or as others stored them (`stored`).

Source   Hsieh et al. 2024, arXiv:2404.06654; parameters of its synthetic tasks, our own wording
Differs  a prompt is fitted by one search per sample, which never overflows and cannot loop; what whole lines leave is
         filled with single sentences; each sample is drawn with a seed of its own
"""

from collections.abc import Callable
from functools import partial
from random import Random

from sahub.data import options
from sahub.data.examples import Example, TaskSpec
from sahub.data.fitting import Budget, Draw, example_of, fitting
from sahub.errors import ConfigError, MissingFiles
from sahub.tasks.ruler import niah, qa, stored, variables, words

SUBSETS: dict[str, Callable[[TaskSpec], Draw]] = {
    **dict.fromkeys(niah.SUBSETS, niah.draws),
    "vt": variables.draws,
    "cwe": words.common_words,
    "fwe": words.made_up_words,
}


def missing(spec: TaskSpec) -> str | None:
    """That the essay or questions of an option, or stored data, are not on this machine; None when nothing is missing.

    Raises ConfigError for an unknown subset or a wrong option, DataError for an essay that holds no text.
    """
    if not spec.is_generated:
        return stored.missing(spec)
    if spec.subset in qa.SUBSETS:
        return qa.missing(spec)
    try:
        _draws(spec)
    except MissingFiles as error:
        return str(error)
    return None


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """Draw examples of `length` tokens (prompt with answer prefix plus the tokens to generate).

    `limit` contexts (None: `options.num_examples`) whose hash falls into `split`; one seed, one set of examples.

    Raises ConfigError for an unknown subset or option, MissingFiles for a file that is not there, DataError for one
    without text or of another layout, and where the length cannot hold what the task hides.
    """
    if not spec.is_generated:
        return stored.load(spec, split=split, limit=limit, seed=seed)
    if spec.subset in qa.SUBSETS:
        return qa.load(spec, split=split, limit=limit, length=length, count_tokens=count_tokens, seed=seed)
    draw, budget = _draws(spec), Budget(length, count_tokens)
    wanted = options.whole(spec, "num_examples", 500, most=10**6) if limit is None else limit

    def make(index: int) -> Example:
        return example_of(spec, draw(Random(f"{seed}/{spec.subset}/{length}/{index}"), budget), budget)

    # A quarter of all contexts is for search: 64 draws per wanted example cannot run short by chance.
    return fitting((partial(make, index) for index in range(64 * wanted)), spec, wanted, split)


def _draws(spec: TaskSpec) -> Draw:
    if spec.subset not in SUBSETS:
        raise ConfigError(
            f"task.subset={spec.subset}: not a generated RULER task; choices: {', '.join([*SUBSETS, *qa.SUBSETS])}"
        )
    return SUBSETS[spec.subset](spec)
