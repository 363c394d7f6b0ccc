"""Winners on examples that no search has seen: dense once per model and task, sparse beside it, paired by context."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from sahub.compute.worker import Batch, Work
from sahub.config.cell import Cell
from sahub.engine.evaluate import Plan
from sahub.engine.outcome import Answer, Outcome, weighted
from sahub.engine.requests import Request
from sahub.engine.session import Attention
from sahub.errors import RunError
from sahub.results.headline import official
from sahub.search.trial import attention_of, excess_of
from sahub.stats.bounded import Groups
from sahub.stats.intervals import Interval, mean_interval, paired, paired_interval
from sahub.stats.verdict import verdicts


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One configuration of a cell to validate; `default` are the builder's own values, None where nobody asks."""

    cell: Cell
    overrides: tuple[str, ...]
    default: tuple[str, ...] | None = None


@dataclass(frozen=True, kw_only=True)
class Validation:
    """The same questions answered densely, with the winner, and with the builder's default (None: not asked)."""

    entry: Entry
    dense: Outcome
    sparse: Outcome
    default: Outcome | None

    def figures(self) -> dict[str, Any]:
        """Accuracies with 95 % intervals, their paired difference, and the winner's measures. Raises RunError."""
        for name, outcome in (("dense", self.dense), ("sparse", self.sparse)):
            if outcome.state != "complete":
                raise RunError(f"the {name} validation failed: {outcome.reason}")
        measures = self.sparse.measures()
        figures: dict[str, Any] = {
            "n": len(self.sparse.answers),
            "tokens": fmean(answer.n_context for answer in self.sparse.answers),
            "contexts": len({answer.example_id for answer in self.sparse.answers}),
            "measures": measures,
            "layers": {"sparse": self.sparse.sparse_layers, "all": self.sparse.num_layers},
            "by_phase": by_phase(self.sparse.micro),
            "feasible": all(number <= 0 for number in excess_of(self.entry.cell, measures).values()),
        }
        scored = bool(graded(self.dense))  # a test split may have no gold answers
        if scored:
            figures["dense_score"] = interval(accuracy(self.dense))
            figures["sparse_score"] = interval(accuracy(self.sparse))
            figures["difference"] = interval(difference(self.sparse, self.dense))
            cell, pairs = (
                self.entry.cell,
                paired(scores_of(self.sparse), scores_of(self.dense), contexts_of(self.dense)),
            )
            figures["paired"] = {name: column.tolist() for name, column in pairs._asdict().items()}
            figures["verdict"] = judged(cell, pairs)
            figures["official"] = {"dense": official(cell, self.dense), "sparse": official(cell, self.sparse)}
        if self.default is not None and self.default.state == "complete":
            figures["default_measures"] = self.default.measures()
            if scored:
                figures["default_score"] = interval(accuracy(self.default))
                figures["tuned_minus_default"] = interval(difference(self.sparse, self.default))
        return figures


def validate(
    entries: Sequence[Entry],
    requests: Sequence[Request],
    plan: Plan,
    on_request: Callable[[], None] = lambda: None,
) -> Work[list[Validation]]:
    """All entries of one model, task and protocol over the same requests."""
    wanted: list[tuple[int, tuple[str, ...]]] = []
    for number, entry in enumerate(entries):
        both = [entry.overrides] if entry.default is None else [entry.overrides, entry.default]
        wanted += [(number, overrides) for overrides in dict.fromkeys(both)]
    attentions = [attention_of(entries[number].cell, overrides) for number, overrides in wanted]
    dense, *outcomes = yield Batch(
        requests=requests,
        attentions=[Attention(), *attentions],
        plan=plan,
        max_concurrent=entries[0].cell.settings.validate.max_concurrent,
        on_request=on_request,
    )
    by_name = dict(zip(wanted, outcomes, strict=True))
    return [
        Validation(
            entry=entry,
            dense=dense,
            sparse=by_name[number, entry.overrides],
            default=None if entry.default is None else by_name[number, entry.default],
        )
        for number, entry in enumerate(entries)
    ]


def accuracy(outcome: Outcome) -> Interval:
    """Mean score with its interval; questions about one context are one cluster. Raises ScoreError for no score."""
    return mean_interval(scores_of(outcome), contexts_of(outcome))


def difference(one: Outcome, other: Outcome) -> Interval:
    """Mean of one minus other, paired by question, clustered by context."""
    return paired_interval(scores_of(one), scores_of(other), contexts_of(one))


def judged(cell: Cell, pairs: Groups) -> dict[str, Any]:
    """Whether the differences of a cell say that it loses less than `validate.margin`, as it is written to files."""
    margin, seed = cell.settings.validate.margin, cell.settings.search.seed
    return verdicts([pairs], [margin], seed=seed)[0]._asdict()


def contexts_of(outcome: Outcome) -> list[str]:
    """The context of every answer that has a score."""
    return [answer.example_id for answer in graded(outcome)]


def scores_of(outcome: Outcome) -> list[float]:
    """The score of every answer that has one."""
    return [answer.score for answer in outcome.answers if answer.score is not None]


def graded(outcome: Outcome) -> list[Answer]:
    """The answers that have a score: those to questions with gold answers."""
    return [answer for answer in outcome.answers if answer.score is not None]


def interval(found: Interval) -> dict[str, float]:
    """An interval as it is written to files."""
    return {"mean": found.mean, "low": found.low, "high": found.high}


def by_phase(micro: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, float]]:
    """Row-weighted densities of the question chunk and of decoding, apart."""
    found: dict[str, dict[str, float]] = {}
    for phase in sorted({row["phase"] for row in micro}):
        rows = [row for row in micro if row["phase"] == phase]
        found[phase] = {name: weighted(rows, name) for name in ("density", "kv_density")}
        errors = [row["e"] for row in rows if row["e"] is not None]
        if errors:
            found[phase]["attention_error"] = fmean(errors)
    return found
