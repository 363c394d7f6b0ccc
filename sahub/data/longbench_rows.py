"""LongBench's rows, with ready prompts as in the mirror, or bare as in the authors' files."""

from collections.abc import Iterator
from typing import Any

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import TaskSpec
from sahub.data.prompts import prompts
from sahub.data.tables import PROMPT, Asked

MIRRORED, BARE = (*PROMPT, "answers"), ("input", "context", "answers")
CLASSES = "all_classes"


def read(spec: TaskSpec, *, needs_length: bool = False) -> Iterator[Asked]:
    """What the rows of the task ask; raises as locate.read_rows, and DataError for a cell of another type."""
    extra = ("length",) if needs_length else ()
    layouts = ((*MIRRORED, *extra), (*BARE, *extra))
    for row in locate.read_rows(spec, *layouts, optional=(CLASSES, "length", *PROMPT)):
        yield _asked(row, spec, needs_length)


def _asked(row: Row, spec: TaskSpec, needs_length: bool) -> Asked:
    metadata: dict[str, Any] = {}
    if needs_length or row.values.get("length") is not None:
        metadata["length"] = row.whole("length")
    if row.values.get(CLASSES) is not None:
        metadata[CLASSES] = list(row.texts(CLASSES))
    if spec.subset in ("trec", "lsht") and not metadata.get(CLASSES):
        raise row.error(CLASSES, "must hold the classes of the task")
    if row.layout[: len(MIRRORED)] == MIRRORED:
        return tables.asked(row, "answers", metadata=metadata)
    references = row.texts("answers")
    if not references:
        raise row.error("answers", "must hold an answer")
    before, question, prefix = prompts("longbench")[spec.subset]
    return Asked(
        context=before + row.text("context", needed=True),
        question=question.replace("{input}", row.text("input")),
        answer_prefix=prefix,
        references=references,
        metadata=metadata,
        place=row.place("answers"),
    )
