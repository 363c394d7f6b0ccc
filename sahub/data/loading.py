"""Examples of any task: its benchmark is found by name, here or in another package."""

import logging
from collections.abc import Callable
from types import ModuleType

from sahub import extensions
from sahub.data import ready_prompts
from sahub.data.examples import SPLITS, Example, TaskSpec, questions_of, split_of
from sahub.errors import ConfigError, DataError, did_you_mean

log = logging.getLogger(__name__)


def load_examples(
    spec: TaskSpec,
    *,
    split: str,
    limit: int | None,
    length: int,
    count_tokens: Callable[[str], int],
    seed: int = 0,
    at_least: int = 1,
) -> list[Example]:
    """Load at most `limit` contexts of one split; `length` is what generated prompts are fitted to, in tokens.

    Raises ConfigError for an unknown benchmark, split or limit, MissingFiles for data that are not on this machine, and
    DataError for data of another shape or fewer than `at_least` contexts.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split}: must be one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: must be at least 1 context, or null for all")
    benchmark = _benchmark(spec.benchmark)

    def load(which: str, most: int | None) -> list[Example]:
        found: list[Example] = benchmark.load(
            spec, split=which, limit=most, length=length, count_tokens=count_tokens, seed=seed
        )
        return found

    examples = load(split, limit)
    strays = [example.id for example in examples if split_of(example.context) != split]
    if strays:
        raise DataError(f"task={spec.name}: {len(strays)} contexts (first {strays[0]}) are not of the {split} split")
    if len(examples) < at_least:
        counts = {which: len(load(which, None)) for which in SPLITS}
        raise DataError(
            f"task={spec.name}: too few contexts: {len(examples)} for {split}, at least {at_least} needed; there are "
            f"{sum(counts.values())} in all: {counts['search']} search, {counts['validate']} validate"
        )
    log.info("task=%s split=%s contexts=%d questions=%d", spec.name, split, len(examples), questions_of(examples))
    return examples


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched before this task can be loaded, with the command that fetches it; None when nothing.

    No network, and no data read but a text that an option names. Raises ConfigError for an unknown benchmark or option,
    DataError where such a text holds nothing.
    """
    look = getattr(_benchmark(spec.benchmark), "missing", None)
    found: str | None = None if look is None else look(spec)
    return found


def _benchmark(name: str) -> ModuleType:
    own = extensions.members("tasks")
    if name in own:
        return extensions.member("tasks", name)
    found = extensions.benchmark(name)
    if found is not None:
        return found if hasattr(found, "load") else ready_prompts
    known = [*own, *extensions.benchmark_names()]
    raise ConfigError(f"task.benchmark={name}: must be one of {', '.join(known)}{did_you_mean(name, known)}")
