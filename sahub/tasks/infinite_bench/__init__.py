"""InfiniteBench: texts of 100,000 tokens and more; its synthetic tasks are also generated at any length.

Source   Zhang et al. 2024, arXiv:2402.13718
Differs  see `stored` (data) and `generate`
"""

from collections.abc import Callable

from sahub.data.examples import Example, TaskSpec
from sahub.tasks.infinite_bench import generate, stored


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for a subset or option."""
    if not spec.is_generated:
        return stored.missing(spec)
    generate.check(spec)
    return None


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split: of the data, or with `task.source=generated` drawn at `length` tokens.

    Raises as `stored.load` and `generate.load`.
    """
    if not spec.is_generated:
        return stored.load(spec, split=split, limit=limit, seed=seed)
    return generate.load(spec, split=split, limit=limit, length=length, count_tokens=count_tokens, seed=seed)
