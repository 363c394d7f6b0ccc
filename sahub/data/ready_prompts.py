"""Files of ready prompts: how a benchmark of another package is loaded unless it says otherwise.

Columns context, question, answer_prefix and answer (a text or a list of texts); a row's max_new_tokens, where there is
one, is its own budget, up to the task's.
"""

from collections.abc import Callable

from sahub.data import locate, tables
from sahub.data.cells import Row
from sahub.data.examples import Example, TaskSpec
from sahub.data.tables import PROMPT, Asked

BUDGET = "max_new_tokens"


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched first, with the command; None when nothing."""
    tables.check_subset(spec, [spec.subset])
    return locate.missing(spec)


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """At most `limit` contexts of the split, in an order drawn by `seed`; `length` and `count_tokens` are not used.

    Raises ConfigError for an unknown option, MissingFiles where there are no data, DataError for a missing column or a
    cell of another type.
    """
    del length, count_tokens
    tables.check_subset(spec, [spec.subset])
    rows = locate.read_rows(spec, (*PROMPT, "answer"), optional=(BUDGET,))
    return tables.examples((_asked(row, spec) for row in rows), spec, split=split, limit=limit, seed=seed)


def _asked(row: Row, spec: TaskSpec) -> Asked:
    own = spec.max_new_tokens if row.values.get(BUDGET) is None else row.whole(BUDGET)
    if own < 1:
        raise row.error(BUDGET, "must be at least 1 token")
    return tables.asked(row, "answer", max_new_tokens=min(own, spec.max_new_tokens))
