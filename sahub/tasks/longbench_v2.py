"""LongBench-v2: multiple-choice questions about very long texts.

Source   Bai et al. 2024, arXiv:2412.15204; rows as in the dataset simonjegou/LongBench-v2 (config 0shot, split test),
         or as in THUDM/LongBench-v2 (split train)
Differs  the authors' rows hold no prompts: they get ours, with the instruction before the answer, in the user's turn
"""

from collections.abc import Callable, Mapping
from typing import Any

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import Example, TaskSpec
from sahub.data.tables import PROMPT, Asked
from sahub.scores import reference_check

SUBSETS = ("0shot",)
LETTERS = "ABCD"
CHOICES = tuple(f"choice_{letter}" for letter in LETTERS)
GROUPS = ("difficulty", "length")
COLUMNS = ("context", "question", "answer", *GROUPS)
READY, BARE = (*COLUMNS, "answer_prefix"), (*COLUMNS, *CHOICES)  # a prompt, or the question beside its choices
INSTRUCTION = "Choose one of the four and end with this sentence: The correct answer is (letter)."


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    tables.check_subset(spec, SUBSETS)
    return locate.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; `length` and `count_tokens` are not used.

    A question's metadata are its `difficulty` and its `length` (short, medium, long); of every pair its share is drawn.

    Raises ConfigError for an unknown subset or option, MissingFiles where there are no data, DataError for a missing
    column, an answer that is no letter or a cell of another type.
    """
    del length, count_tokens
    tables.check_subset(spec, SUBSETS)
    rows = locate.read_rows(spec, READY, BARE, alone=True)
    return tables.examples(
        map(_asked, rows), spec, split=split, limit=limit, seed=seed, group=_group, check=reference_check(spec.name)
    )


def _group(metadata: Mapping[str, Any]) -> str:
    return ", ".join(metadata[name] for name in GROUPS)


def _asked(row: Row) -> Asked:
    found = tables.asked(row, "answer", metadata={name: row.text(name, needed=True) for name in GROUPS})
    if len(found.references) != 1 or found.references[0].strip() not in tuple(LETTERS):
        raise row.error("answer", f"must be one of {', '.join(LETTERS)}")
    question = found.question
    if row.layout == BARE:
        lines = [f"({letter}) {row.text(name)}" for letter, name in zip(LETTERS, CHOICES, strict=True)]
        question = "\n".join(["", "", f"Question: {question.strip()}", *lines, "", INSTRUCTION, ""])
    return Asked(
        context=found.context,
        question=question,
        answer_prefix=row.text(PROMPT[2]),
        references=(found.references[0].strip(),),
        metadata=found.metadata,
        place=found.place,
    )
