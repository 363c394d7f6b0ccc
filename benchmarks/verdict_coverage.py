"""How often a table says `lossless` of builders that lose the margin: from answers to the words of its verdicts.

    python benchmarks/verdict_coverage.py [tables=300] [builders=2] [seed=0]

Every builder loses `validate.margin` on average, so a `lossless` is wrong; at most 2.5 % of the tables may hold one
(3 standard errors are allowed). Answers are texts, scored by RULER's rule, validated as they are written to files, and
judged in a table. Minutes on one core.
"""

import sys
from collections.abc import Iterator
from functools import cache
from itertools import product
from random import Random
from typing import Any
from unittest.mock import patch

from sahub import scores
from sahub.attention.call import Geometry
from sahub.config.cell import Cell, compose_cell
from sahub.engine.outcome import Answer, Outcome
from sahub.engine.session import Attention
from sahub.report.tables import tables
from sahub.results.protocol import protocol_of
from sahub.results.validate import Entry, Validation
from sahub.stats.intervals import TAIL

CONTEXTS = (30, 60, 200)
MARGINS = ((0.05, 0.0), (0.1, 0.0), (0.1, 0.05))  # shares of questions that are lost, and won
QUESTIONS = (1, 4)  # of a context
ALIKE = (0.0, 1.0)  # share of contexts all of whose questions fare alike
TASK, GOLD, WRONG = "ruler/niah_single_1", "The number is 1234567.", "I do not know."
MICRO = {"phase": "decode", "rows": 1, "density": 0.1, "kv_density": 0.1, "error": 0.0, "norm": 1.0, "elements": 1,
         "e": 0.0, "example": "0", "question": "0", "layer": 0, "selected": 1}  # fmt: skip


@cache
def scored(answer: str) -> float:
    """By the task's rule."""
    return scores.score(TASK, answer, ("1234567",))


def outcome(right: list[list[bool]]) -> Outcome:
    """A stack that answers these questions of each context right."""
    geometry = Geometry(num_layers=1, num_heads=1, num_kv_heads=1, head_dim=8)
    made = Outcome(attention=Attention(), micro=[MICRO], num_keys=1000, geometry=geometry, key_bytes=64)
    made.answers = [
        Answer(
            example_id=str(context), question_id=str(number), question="", answer=GOLD if one else WRONG,
            references=("1234567",), score=scored(GOLD if one else WRONG), measures={},
            n_context=1000, n_new=8, seconds=0.0,
        )
        for context, many in enumerate(right)
        for number, one in enumerate(many)
    ]  # fmt: skip
    return made


def drawn(chance: Random, shares: tuple[float, float], contexts: int, questions: int, alike: float) -> Iterator[Any]:
    """For each context whether dense and sparse answer its questions right."""
    weights = (*shares, 1 - sum(shares))
    for _ in range(contexts):
        same = chance.random() < alike
        found = chance.choices(((True, False), (False, True), (True, True)), weights, k=1 if same else questions)
        yield found * questions if same else found


def row(cell: Cell, builder: str, pairs: list[Any]) -> dict[str, Any]:
    """A cell as the summary of a run has it."""
    dense, sparse = (outcome([[one[at] for one in many] for many in pairs]) for at in (0, 1))
    validation = Validation(entry=Entry(cell=cell, overrides=()), dense=dense, sparse=sparse, default=None)
    names = {"model": "m", "task": TASK, "builder": builder, "objective": "sparsity_10"}
    return {**names, "protocol": protocol_of(cell), "validation": validation.figures()}


def wrong(cell: Cell, builders: int, chance: Random, how: Any) -> bool:
    """Whether a table of so many builders has a `lossless`."""
    rows = [row(cell, f"builder_{number}", list(drawn(chance, *how))) for number in range(builders)]
    [table] = tables(rows)
    return any(one["verdict"]["word"] == "lossless" for one in table.rows)


def main() -> None:
    """Print every kind of table; exit 1 where one is beyond what is promised."""
    given = dict(item.split("=") for item in sys.argv[1:])
    many, builders, seed = (
        int(given.get(name, usual)) for name, usual in (("tables", 300), ("builders", 2), ("seed", 0))
    )
    allowed, beyond = TAIL + 3 * (TAIL * (1 - TAIL) / many) ** 0.5, 0
    for shares, contexts, questions, alike in product(MARGINS, CONTEXTS, QUESTIONS, ALIKE):
        if questions == 1 and alike:
            continue
        cell = compose_cell([f"task={TASK}", f"validate.margin={shares[0] - shares[1]:g}"])
        chance = Random(f"{seed} {shares} {contexts} {questions} {alike}")
        found = sum(wrong(cell, builders, chance, (shares, contexts, questions, alike)) for _ in range(many)) / many
        beyond += found > allowed
        sys.stdout.write(
            f"lost {shares[0]:4.0%} won {shares[1]:4.0%}, {contexts:3} contexts of {questions} questions, {alike:4.0%} "
            f"alike: {found:.2%} of {many} tables hold a wrong lossless{'  BEYOND' if found > allowed else ''}\n"
        )
        sys.stdout.flush()
    sys.exit(f"{beyond} kinds beyond what is promised" if beyond else 0)


if __name__ == "__main__":
    with patch("sahub.stats.verdict.REPETITIONS", 1):  # how many contexts are lacking is not asked here
        main()
