"""InfiniteBench's data: rows with ready prompts and labels as lists of texts, or the authors' own.

Source   the dataset MaxJeblick/InfiniteBench (config = subset, split test), or the JSON lines of
         xinrongzhang2022/InfiniteBench
Differs  budgets are the official ones, not the mirror's (+20); the authors' rows hold no prompts: they get ours
"""

from sahub.data import locate, tables
from sahub.data.cells import Row, is_number
from sahub.data.examples import Example, TaskSpec
from sahub.data.prompts import prompts
from sahub.data.tables import PROMPT, Asked
from sahub.errors import ScoreError
from sahub.scores import reference_check
from sahub.scores.infinite_labels import repair_label

SUBSETS = (
    "passkey", "number_string", "kv_retrieval", "longbook_sum_eng", "longbook_choice_eng", "longbook_qa_eng",
    "longbook_qa_chn", "longdialogue_qa_eng", "math_find", "math_calc", "code_run", "code_debug",
)  # fmt: skip
READY = (*PROMPT, "answer")
NUMBERS = ("math_find", "math_calc", "code_run")  # whose labels are numbers, math_calc's also as text in brackets
CHOICES = ("longbook_choice_eng", "code_debug")


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing. Raises ConfigError for an unknown subset."""
    tables.check_subset(spec, SUBSETS, "num_examples")
    return locate.missing(spec)


def load(spec: TaskSpec, *, split: str, limit: int | None, seed: int) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; labels repaired.

    Raises ConfigError for an unknown subset or option, MissingFiles where there are no data, DataError for a missing
    column or a label that the task cannot have.
    """
    tables.check_subset(spec, SUBSETS, "num_examples")
    bare = ("context", "input", "answer", *(["options"] if spec.subset in CHOICES else []))
    rows = locate.read_rows(spec, READY, bare, optional=("options",))
    asked = (_asked(row, spec) for row in rows)
    return tables.examples(asked, spec, split=split, limit=limit, seed=seed, check=reference_check(spec.name))


def _asked(row: Row, spec: TaskSpec) -> Asked:
    place = row.place("answer")
    if row.layout == READY:
        context, question, prefix = row.text("context", needed=True), row.text("question"), row.text("answer_prefix")
        references = _label(row, spec, question)
        return Asked(context=context, question=question, answer_prefix=prefix, references=references, place=place)
    before, after, prefix = prompts("infinite_bench")[spec.subset]
    options = row.texts("options") if spec.subset in CHOICES else ()
    lines = "\n".join(f"{chr(65 + place)}. {text}" for place, text in enumerate(options))
    question = after.replace("{input}", row.text("input")).replace("{options}", lines)
    return Asked(
        context=before.replace("{input}", row.text("input")) + row.text("context", needed=True),
        question=question,
        answer_prefix=prefix,
        references=_of_option(row, options) if options else _label(row, spec, question),
        place=place,
    )


def _of_option(row: Row, options: tuple[str, ...]) -> tuple[str, ...]:
    """The text and the letter of the right option."""
    texts = row.texts("answer")
    if not texts or texts[0] not in options:
        raise row.error("answer", "must be one of the options")
    return texts[0], chr(65 + options.index(texts[0]))


def _label(row: Row, spec: TaskSpec, question: str) -> tuple[str, ...]:
    answer = row.values["answer"] if spec.subset in NUMBERS else list(row.texts("answer"))
    if answer is None or answer in ("", []) or (isinstance(answer, float) and not is_number(answer)):
        raise row.error("answer", "must hold an answer")
    try:
        found = repair_label(spec.subset, answer, question)
    except ScoreError as error:
        raise row.error("answer", str(error)) from None
    return tuple(map(str, found if isinstance(found, list | tuple) else [found]))
