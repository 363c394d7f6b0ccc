"""How long contexts, questions and answers are in a model's tokens, and which answers truncation takes away."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from sahub.config.cell import Cell
from sahub.config.group_schemas import Protocol
from sahub.config.settings import Search, Validate
from sahub.data.examples import Example
from sahub.doctor import anatomy
from sahub.doctor.report import Rows
from sahub.engine.model import Model, wrap_model
from sahub.engine.requests import Request, limit, prepare_under
from sahub.models.reading import load_tokenizer, read_config

MEASURED = 200  # contexts of a split at most that are turned into tokens
LOST = 0.5  # share of the answers; where more are cut away, a run measures guesses


def reader(cell: Cell) -> Model:
    """The cell's model without its weights: enough to turn texts into tokens.

    Raises MissingFiles, ConfigError and UnsupportedModel.
    """
    settings = cell.settings.model
    config = read_config(settings.path, settings.revision, settings.trust_remote_code)
    empty = anatomy.skeleton(config, cell.choices.model, trust_remote_code=settings.trust_remote_code)
    tokenizer = load_tokenizer(settings.path, settings.revision, settings.trust_remote_code)
    return wrap_model(
        empty,
        tokenizer,
        name=cell.choices.model,
        max_context_length=settings.max_context_length,
        template=cell.settings.protocol.template,
        date=cell.settings.protocol.date,
        thinking=cell.settings.protocol.thinking,
    )


def measured(
    model: Model, examples: Sequence[Example], limits: Search | Validate, protocol: Protocol
) -> dict[str, Any]:
    """Lengths of the first contexts, and what the phase with these limits cuts. Raises what preparing raises."""
    most = min(limits.max_context_length, model.max_context_length)
    requests = prepare_under(model, examples[:MEASURED], protocol, limits)
    asked = [question for request in requests for question in request.example.questions]
    answers = [min(map(model.count_tokens, map(str, one.references)), default=0) for one in asked]
    standing, lost = map(sum, zip(*(_answers(model, request) for request in requests), strict=True))
    return {
        "contexts": len(requests),
        "of": len(examples),
        "longest": most,
        "context_tokens": _spread([len(request.context_ids) + request.cut_tokens for request in requests]),
        "question_tokens": _spread([len(ids) for request in requests for ids in request.question_ids]),
        "answer_tokens": _spread(answers),
        "answers": len(asked),
        "answers_too_long": sum(
            count > limit(one, limits.max_new_tokens) for count, one in zip(answers, asked, strict=True)
        ),
        "control": sum(bool(request.control) for request in requests),
        "cut": sum(request.cut_tokens > 0 for request in requests),
        "answers_in_context": standing,
        "answers_lost": lost,
    }


def _spread(counts: Sequence[int]) -> dict[str, float]:
    return {"min": min(counts), "median": median(counts), "max": max(counts)}


def _answers(model: Model, request: Request) -> tuple[int, int]:
    """Of how many questions a gold answer stands in the context, and of how many of these truncation cut it away."""
    whole = _squeezed(request.example.context)
    gold = [[_squeezed(str(text)) for text in question.references] for question in request.example.questions]
    standing = [[text for text in texts if text and text in whole] for texts in gold]
    if not request.cut_tokens:
        return sum(map(bool, standing)), 0
    kept = _squeezed(model.decode(list(request.context_ids)))
    return sum(map(bool, standing)), sum(bool(texts) and not any(text in kept for text in texts) for texts in standing)


def _squeezed(text: str) -> str:
    """Without case and white space, which tokenizers may not give back."""
    return "".join(text.lower().split())


def rows_of(phases: Mapping[str, Mapping[str, Any]]) -> Rows:
    """A row per phase and kind of text."""
    found: list[tuple[str, str]] = []
    for phase, facts in phases.items():
        some = f" of {facts['of']:,}" if facts["contexts"] < facts["of"] else ""
        found.append((f"{phase} contexts", f"{_text(facts['context_tokens'])} (n={facts['contexts']:,}{some})"))
        found.append((f"{phase} questions", f"{_text(facts['question_tokens'])}"))
        found.append((f"{phase} answers", f"{_text(facts['answer_tokens'])}"))
        cut = f"{facts['cut']:,} of {facts['contexts']:,} contexts cut to {facts['longest']:,} tokens"
        lost = f"{facts['answers_lost']:,} of the {facts['answers_in_context']:,} answers that stand in a context lost"
        found.append((f"{phase} truncation", f"{cut}; {lost}" if facts["cut"] else "nothing is cut"))
    return found


def _text(spread: Mapping[str, float]) -> str:
    low, middle, high = (spread[name] for name in ("min", "median", "max"))
    return f"min {low:,}, median {middle:,.0f}, max {high:,} tokens"


def problems(phases: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Phases in which most of the answers are cut away."""
    return [
        f"in the {phase} phase {facts['answers_lost']} of {facts['answers_in_context']} answers are cut away with the "
        f"contexts' ends or middles at {facts['longest']} tokens; raise {phase}.max_context_length"
        for phase, facts in phases.items()
        if facts["answers_lost"] > LOST * facts["answers_in_context"]
    ]


def doubts(phases: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, str]]:
    """Phases in which some answers are cut away, or longer than what may be generated."""
    found = []
    for phase, facts in phases.items():
        lost, standing, long = facts["answers_lost"], facts["answers_in_context"], facts["answers_too_long"]
        if 0 < lost <= LOST * standing:
            found.append(
                (f"every answer in the {phase} phase", f"{lost} of {standing} are cut away with their contexts")
            )
        if facts["control"]:
            why = f"{facts['control']} of {facts['contexts']} contexts or their questions hold its control tokens"
            found.append((f"texts as plain text in the {phase} phase", why))
        if long:
            why = f"{long} of {facts['answers']} gold answers are longer than {phase}.max_new_tokens allows"
            found.append((f"whole answers in the {phase} phase", why))
    return found
