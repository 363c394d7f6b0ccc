"""RULER's tasks as others generated and stored them: prompts of a few lengths, to compare with their numbers.

Source   datasets simonjegou/ruler (config = length, rows of all tasks) and xAlg-AI/att-hub-ruler-16k and -32k
         (config = split = task)
Differs  budgets are the official ones
"""

from dataclasses import replace

from sahub.data import locate, tables
from sahub.data.examples import Example, TaskSpec
from sahub.data.tables import PROMPT
from sahub.errors import ConfigError
from sahub.scores import reference_check

BY_LENGTH, BY_TASK = "simonjegou/ruler", "xAlg-AI/att-hub-ruler"
LENGTHS = {4096: BY_LENGTH, 8192: BY_LENGTH, 16384: BY_LENGTH, 32768: f"{BY_TASK}-32k"}


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for a length nobody has."""
    return locate.missing(located(spec))


def load(spec: TaskSpec, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`. Raises as sahub.data.locate.read_rows."""
    rows = locate.read_rows(located(spec), (*PROMPT, "answer"))
    asked = (tables.asked(row, "answer") for row in rows)
    return tables.examples(asked, spec, split=split, limit=limit, seed=seed, check=reference_check(spec.name))


def located(spec: TaskSpec) -> TaskSpec:
    """The task with dataset, configuration, split and selection as its data have them. Raises ConfigError."""
    length = str(spec.length) if spec.length else None
    if spec.path is not None:
        return replace(spec, config=length, where={"task": spec.subset} if length else {})
    dataset = spec.dataset or LENGTHS.get(spec.length or 0)
    if dataset is not None and dataset.startswith(BY_TASK):
        return replace(spec, dataset=dataset, split=spec.subset)
    if dataset is None or length is None:
        raise ConfigError(
            f"task.length={spec.length}: must be one of {', '.join(map(str, LENGTHS))} where stored prompts are read "
            f"(task.source=files), or one that task.dataset={dataset} has"
        )
    return replace(spec, dataset=dataset, config=length, where={"task": spec.subset})
