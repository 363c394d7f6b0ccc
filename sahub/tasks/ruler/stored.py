"""RULER's tasks as others generated and stored them: prompts of a few lengths, to compare with their numbers.

Source   datasets simonjegou/ruler (config = length, rows of all tasks) and xAlg-AI/att-hub-ruler-16k and -32k
         (config = split = task); JSON lines as RULER's own scripts write them: <task>/validation.jsonl, with `input`
         (the whole prompt), `outputs` and, in newer versions, `answer_prefix`
Differs  budgets are the official ones; of a whole prompt, the last line is the question
"""

import re
from dataclasses import replace
from pathlib import Path

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import Example, TaskSpec
from sahub.data.tables import PROMPT, Asked
from sahub.errors import ConfigError
from sahub.scores import reference_check

BY_LENGTH, BY_TASK = "simonjegou/ruler", "xAlg-AI/att-hub-ruler"
WHOLE = ("input", "outputs")
# How the answer begins in the prompts of RULER's scripts, after the question.
PREFIX = re.compile(r" (Answer:.*|The special magic \S+ for .* mentioned in the provided text (is|are))$")
LENGTHS = {4096: BY_LENGTH, 8192: BY_LENGTH, 16384: BY_LENGTH, 32768: f"{BY_TASK}-32k"}


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for a length nobody has."""
    return locate.missing(located(spec))


def load(spec: TaskSpec, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`. Raises as sahub.data.locate.read_rows."""
    rows = locate.read_rows(located(spec), (*PROMPT, "answer"), WHOLE, optional=("answer_prefix",))
    asked = (_asked(row) for row in rows)
    return tables.examples(asked, spec, split=split, limit=limit, seed=seed, check=reference_check(spec.name))


def _asked(row: Row) -> Asked:
    """A row of ready parts, or a whole prompt taken apart: its last line asks, and may begin the answer."""
    if "context" in row.values:
        return tables.asked(row, "answer")
    context, _, last = row.text("input", needed=True).rpartition("\n")
    if not context.strip() or not last.strip():
        raise row.error("input", "must be a text with a question in its last line")
    prefix = row.text("answer_prefix") if row.values.get("answer_prefix") is not None else ""
    if not prefix and (found := PREFIX.search(last)):
        last, prefix = last[: found.start()], found[0]
    references = row.texts("outputs")
    if not references:
        raise row.error("outputs", "must hold an answer")
    return Asked(context=context, question=f"\n{last}", answer_prefix=prefix, references=references)


def located(spec: TaskSpec) -> TaskSpec:
    """The task with dataset, configuration, split and selection as its data have them. Raises ConfigError."""
    length = str(spec.length) if spec.length else None
    if spec.path is not None:
        if (file := _written(spec, Path(spec.path).expanduser())) is not None:
            return replace(spec, path=str(file), config=None)
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


def _written(spec: TaskSpec, root: Path) -> Path | None:
    """The task's file where RULER's scripts put it, below a folder of theirs; None where there is none."""
    folders = [f"{spec.subset}", f"data/{spec.subset}", f"{spec.length}/data/{spec.subset}"]
    folders += ["."] if root.name == spec.subset else []
    names = dict.fromkeys((spec.split, "validation"))
    files = [root / folder / f"{name}.jsonl" for folder in folders for name in names]
    return next((file for file in files if file.is_file()), None)
