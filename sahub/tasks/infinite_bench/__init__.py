"""InfiniteBench: texts of 100,000 tokens and more; its synthetic tasks are also generated at any length.

Source   Zhang et al. 2024, arXiv:2402.13718
Differs  see `stored` (data) and `generate`
"""

from collections.abc import Callable

from sahub.errors import ConfigError
from sahub.examples import Example, TaskSpec
from sahub.tasks.infinite_bench import generate, stored


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for a subset or option."""
    if not _is_generated(spec):
        return stored.missing(spec)
    generate.check(spec)
    return None


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split: of the data, or with `task.source=generated` drawn at `length` tokens.

    Raises as `stored.load` and `generate.load`.
    """
    if not _is_generated(spec):
        return stored.load(spec, split=split, limit=limit, seed=seed)
    return generate.load(spec, split=split, limit=limit, length=length, count_tokens=count_tokens, seed=seed)


def _is_generated(spec: TaskSpec) -> bool:
    if spec.source == "generated" and spec.path is not None:
        raise ConfigError(f"task.source=generated: reads no data, so task.path={spec.path} must be null")
    return spec.source == "generated" or (spec.path is None and spec.dataset is None and spec.source is None)
