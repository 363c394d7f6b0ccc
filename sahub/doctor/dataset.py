"""What data hold, before any model is asked: rows, contexts, labels, and questions that are there twice."""

from collections.abc import Mapping, Sequence
from typing import Any

from sahub.data import locate
from sahub.data.examples import Example, TaskSpec, questions_of
from sahub.doctor.report import Rows
from sahub.errors import SahubError

LABELS = ("answer", "answers", "output")  # columns that hold gold answers, of the benchmarks' layouts

Examples = Mapping[str, Sequence[Example]]  # of each split


def survey(spec: TaskSpec) -> dict[str, int] | None:
    """How many rows the files hold, and how many of these have no label; None for files that cannot be read so."""
    if spec.is_generated:
        return None
    count = unlabelled = 0
    try:
        for row in locate.read_rows(spec, (), optional=LABELS):
            labels = [row.values[name] for name in LABELS if name in row]
            count += 1
            unlabelled += bool(labels) and all(map(_is_blank, labels))
    except SahubError:
        return None  # loading says what is wrong
    return {"rows": count, "rows_without_label": unlabelled}


def _is_blank(label: Any) -> bool:
    if isinstance(label, dict):
        return all(map(_is_blank, label.values()))
    if isinstance(label, list):
        return all(map(_is_blank, label))
    return label is None or label != label or str(label).strip() in ("", "{}")


def facts_of(examples: Examples, rows: Mapping[str, int] | None) -> dict[str, Any]:
    """Contexts and questions of each split, questions without a label, and questions that one context has twice."""
    asked = [(example.id, question) for held in examples.values() for example in held for question in example.questions]
    labels: dict[tuple[str, str], list[tuple[Any, ...]]] = {}
    for key, question in asked:
        labels.setdefault((key, question.text), []).append(tuple(question.references))
    twice = [held for held in labels.values() if len(held) > 1]
    return {
        **(rows or {}),
        "contexts": {split: len(held) for split, held in examples.items()},
        "questions": {split: questions_of(list(held)) for split, held in examples.items()},
        "questions_without_label": sum(all(map(_is_blank, question.references)) for _, question in asked),
        "duplicates": sum(len(held) - 1 for held in twice),
        "contradictions": sum(len(set(held)) > 1 for held in twice),
    }


def rows_of(spec: TaskSpec, facts: Mapping[str, Any]) -> Rows:
    """The facts for people."""
    found = [("source", _source(spec))]
    if "rows" in facts:
        none = facts["rows_without_label"]
        found.append(("rows", f"{facts['rows']:,}{f'; {none:,} of them without a label' if none else ''}"))
    drawn = " drawn" if spec.is_generated else ""
    counts = [f"{split} {count:,}" for split, count in facts["contexts"].items()]
    asked = [f"{split} {count:,}" for split, count in facts["questions"].items()]
    bare, twice, other = facts["questions_without_label"], facts["duplicates"], facts["contradictions"]
    return [
        *found,
        ("contexts", f"{', '.join(counts) or 'none could be loaded'}{drawn if counts else ''}"),
        ("questions", ", ".join(asked) or "none"),
        ("labels", f"none of {_several(bare)}" if bare else "every question has one"),
        ("duplicates", f"{_several(twice)} of a context once more, {other:,} with another label" if twice else "none"),
    ]


def _source(spec: TaskSpec) -> str:
    if spec.is_generated:
        return "generated, at the length of the run"
    return str(spec.path or f"{spec.dataset}, in the cache")


def problems(spec: TaskSpec, facts: Mapping[str, Any]) -> list[str]:
    """What spoils every run: questions without a label, where scores are wanted."""
    return [] if spec.options.get("unscored") else [why for _, why in _unlabelled(facts)]


def doubts(spec: TaskSpec, facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What makes numbers less sure: what for, and why."""
    found = _unlabelled(facts) if spec.options.get("unscored") else []
    if count := facts["duplicates"]:
        found.append(("counting questions as independent", f"{_several(count)} of a context asked more than once"))
    return found


def _unlabelled(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    bare, asked = facts["questions_without_label"], sum(facts["questions"].values())
    why = f"{bare} of {_several(asked)} have no label (empty, or hidden by the benchmark) that answers can be scored by"
    return [("scores", why)] if bare else []


def _several(count: int) -> str:
    return f"{count:,} question{'' if count == 1 else 's'}"
