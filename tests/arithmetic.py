"""Searches without a model: outcomes are formulas of a stack's fields, so that a test knows every number."""

import math
from collections.abc import Callable, Sequence

from sahub.attention.call import Geometry
from sahub.compute.worker import Batch, drive
from sahub.config.cell import compose_cell
from sahub.data.examples import Example, Question
from sahub.engine.outcome import Answer, Outcome, failed
from sahub.engine.requests import Request
from sahub.search.scope import Part
from sahub.search.search import Search
from sahub.search.trial import Study

GEOMETRY = Geometry(num_layers=2, num_heads=4, num_kv_heads=2, head_dim=64)
SMALL = [
    "objective.measure=answer_kl",
    "model.max_context_length=8192",
    "search.num_samples=12",
    "search.batch=4",
    "search.promote=0",
    "search.calibrate=0",
    "search.decide=0",
    "scheduler=none",
]
# Leaves page_size (6 choices) and label_bits (4 choices) free.
PINNED = ["builder.stages.sink.sink_size=4", "builder.stages.local.window_size=8"]

Formula = Callable[[object, str], float]  # of a quest stage and a context's text


def kl(quest, text: str) -> float:
    """Best at page_size 32 and 16 bits; contexts differ a little."""
    return abs(math.log2(quest.page_size) - 5) / 5 + (16 - quest.label_bits) / 100 + len(text) / 1000


def density(quest, text: str) -> float:
    return quest.density if isinstance(quest.density, float) else 0.1


def requests(count: int = 6, mark: str = "x") -> list[Request]:
    """Contexts that are known by their text: 1, 2, 3 ... marks."""
    question = Question(id="0", text="?", references=("yes",), max_new_tokens=4)
    return [
        Request(
            example=Example(id=f"{mark}{number}", context=mark * number, questions=(question,)),
            context_ids=tuple(range(1000)),
            question_ids=((1, 2),),
            cut_tokens=0,
        )
        for number in range(1, count + 1)
    ]


class Arithmetic:
    """Answers batches by formulas and counts what it was asked."""

    def __init__(
        self,
        kl: Formula = kl,
        density: Formula = density,
        broken: Callable[[object, str], bool] | None = None,
        score: Formula | None = None,
        dense_score: float = 1.0,
    ):
        self.kl, self.density, self.broken = kl, density, broken or (lambda quest, text: False)
        self.score = score or (lambda quest, text: 1.0 - min(1.0, self.kl(quest, text)))
        self.dense_score = dense_score
        self.asked: list[tuple[int, int]] = []  # stacks and contexts of each batch

    def __call__(self, batch: Batch) -> list[Outcome]:
        self.asked.append((len(batch.attentions), len(batch.requests)))
        return [self._outcome(attention, batch) for attention in batch.attentions]

    def _outcome(self, attention, batch: Batch) -> Outcome:
        quest = attention.stack.stages[-1] if attention.stack else None  # none: dense
        found = Outcome(attention=attention, num_keys=1000, geometry=GEOMETRY)
        found.aux_bits = attention.stack.aux_bits(GEOMETRY, 1000) if attention.stack else 0.0
        for request in batch.requests:
            text = request.example.context
            if quest and self.broken(quest, text):
                return failed(attention, f"broken on {text}")
            error = self.kl(quest, text) if quest else 0.0
            score = self.score(quest, text) if quest else self.dense_score
            found.answers.append(
                Answer(
                    example_id=request.example.id,
                    question_id="0",
                    question="?",
                    answer="",
                    references=("yes",),
                    score=score if batch.plan.fidelity == "generate" else None,
                    measures={"answer_kl": error, "answer_nll": error},
                    n_context=1000,
                    n_new=1,
                    seconds=0.0,
                )
            )
            kept = self.density(quest, text) if quest else 1.0
            found.micro.append(
                {"example": request.example.id, "layer": 0, "phase": "question", "rows": 1, "error": 0.0, "norm": 0.0}
                | {"elements": 0, "e": None, "density": kept, "kv_density": kept, "selected": 1}
            )
        return found


def run(
    *overrides: str,
    work: Callable[[Batch], list[Outcome]] | None = None,
    count: int = 6,
    others: Sequence[Part] = (),
    deciding: Sequence[Request] = (),
) -> Study:
    """A search of `builder=quest` over `count` contexts."""
    cell = compose_cell([*SMALL, *overrides])
    parts = [Part(cell, requests(count), deciding), *others]
    return drive(Search(parts, GEOMETRY).work(), work or Arithmetic())


def figures(study: Study) -> list[tuple]:
    """Everything about the trials but their times."""
    return [
        (t.number, t.state, t.fidelity, t.overrides, t.value, t.feasible, t.reason, t.contexts, dict(t.rungs))
        for t in study.trials
    ]
