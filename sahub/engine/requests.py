"""From a cell to a loaded model and to examples as token ids: contexts and questions apart, cut to fit."""

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import torch

from sahub.config.cell import Cell
from sahub.config.group_schemas import Protocol
from sahub.config.settings import Search, Validate
from sahub.data.division import divided, first_questions
from sahub.data.examples import Example, Question
from sahub.data.loading import load_examples
from sahub.engine.model import Model, load_model
from sahub.errors import ConfigError, DataError
from sahub.models.weights import spec_of

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Request:
    """A context as the model will read it, with its questions as token ids."""

    example: Example
    context_ids: tuple[int, ...]
    question_ids: tuple[tuple[int, ...], ...]
    cut_tokens: int  # taken out of the context to make it fit
    line_stop: int | None = None  # the id of a line break, where one ends the answers
    control: tuple[str, ...] = ()  # tokens in its texts that steer the model

    @cached_property
    def digest(self) -> str:
        """A hash of the context's ids: contexts are long, and every stack asks for it."""
        return hashlib.sha256(repr(self.context_ids).encode()).hexdigest()

    def room(self, max_new_tokens: int | None) -> int:
        """Tokens that the longest question and its answer need beyond the context."""
        return max(
            len(ids) + limit(question, max_new_tokens)
            for ids, question in zip(self.question_ids, self.example.questions, strict=True)
        )


@dataclass
class Prepared:
    """The prepared examples of one model's cells, made once for all cells that ask for the same."""

    model: Model
    held: dict[str, list[Request]] = field(default_factory=dict)

    def requests(self, cell: Cell, split: str) -> list[Request]:
        """The cell's requests for `search`, `decide` or `validate`. Raises what loading and preparing raise."""
        settings = cell.settings
        limits = settings.validate if split == "validate" else settings.search
        protocol, model = settings.protocol, under(self.model, settings.protocol)
        for name, some in self._examples(cell, model, split).items():
            self.held[self._key(cell, name)] = prepare_under(model, some, protocol, limits, name_of(cell, name))
        return self.held[self._key(cell, split)]

    def _examples(self, cell: Cell, model: Model, split: str) -> dict[str, list[Example]]:
        """The examples of a split that is not held; those of a search come in two parts, see `divided`."""
        if self._key(cell, split) in self.held:
            return {}
        settings, deciding = cell.settings, 0 if split == "validate" else cell.settings.search.decide
        limits = settings.validate if split == "validate" else settings.search
        most = min(limits.max_context_length, model.max_context_length)
        examples = load_examples(
            spec_of(cell),
            split="validate" if split == "validate" else "search",
            limit=None if limits.max_requests is None else limits.max_requests + deciding,
            length=min(settings.task.length or most, most) - model.overhead_tokens,
            count_tokens=model.count_tokens,
            seed=settings.search.seed,
        )
        if split == "validate":
            return {split: first_questions(examples, limits.max_requests)}
        chosen, fresh = divided(examples, settings.search.max_requests, deciding)
        return {"search": chosen, "decide": fresh}

    def _key(self, cell: Cell, split: str) -> str:
        settings = cell.settings
        limits = settings.validate if split == "validate" else settings.search
        asked = (limits.max_requests, limits.max_context_length, limits.max_new_tokens, settings.search.decide)
        return repr((settings.task, split, asked, settings.protocol, settings.search.seed))


def limit(question: Question, max_new_tokens: int | None) -> int:
    """Tokens the answer may have: the task's number, or the smaller one asked for."""
    return question.max_new_tokens if max_new_tokens is None else min(max_new_tokens, question.max_new_tokens)


def name_of(cell: Cell, split: str) -> str:
    """The name of a cell's examples in the log."""
    return f"task={cell.choices.task} split={split}"


def under(model: Model, protocol: Protocol) -> Model:
    """The model with prompts as the protocol says. Raises ConfigError for a template that cannot be used."""
    return model.templated(protocol.template, protocol.date, protocol.thinking)


def prepare_under(
    model: Model, examples: Sequence[Example], protocol: Protocol, limits: Search | Validate, name: str = ""
) -> list[Request]:
    """`prepare` as the protocol says, within the limits of a phase."""
    return prepare(
        under(model, protocol),
        examples,
        max_context_length=limits.max_context_length,
        max_new_tokens=limits.max_new_tokens,
        truncation=protocol.truncation,
        query_aware=protocol.query_aware,
        newline_stops=protocol.newline_stops,
        name=name,
    )


def prepare(
    model: Model,
    examples: Sequence[Example],
    *,
    max_context_length: int,
    max_new_tokens: int | None,
    truncation: str,
    query_aware: bool = False,
    newline_stops: bool = False,
    name: str = "",
) -> list[Request]:
    """Tokenise contexts and questions apart; cut contexts that leave no room for question and answer.

    `truncation` middle keeps both ends of the context, head its beginning, followed by the example's `cut_mark`.
    `query_aware` makes a request of every question, whose text ends the context; it is never cut. `newline_stops`:
    line breaks end answers. What was cut is logged, after the `name` of the examples.

    Raises DataError for an empty question, ConfigError for a tokenizer without line breaks.
    """
    requests = []
    most = min(max_context_length, model.max_context_length)
    line_stop = _line_break(model) if newline_stops else None
    for example in _by_question(examples) if query_aware else examples:
        aware = model.encode(example.questions[0].text) if query_aware else []
        questions = tuple(
            tuple(model.question_ids("" if query_aware else q.text, q.answer_prefix)) for q in example.questions
        )
        if not all(questions):
            raise DataError(f"example {example.id}: a question without any token; give it a text or an answer prefix")
        ids = model.context_ids(example.context)
        request = Request(
            example=example,
            context_ids=(),
            question_ids=questions,
            cut_tokens=0,
            line_stop=line_stop,
            control=control_tokens(model, example),
        )
        room = most - request.room(max_new_tokens) - len(aware)
        if room < 1:
            raise DataError(f"example {example.id}: question and answer alone fill max_context_length={most} tokens")
        kept = cut(ids, room, truncation, model.encode(example.cut_mark) if example.cut_mark else ())
        requests.append(replace(request, context_ids=(*kept, *aware), cut_tokens=len(ids) - len(kept)))
    for line in lines_about(requests, truncation, max_new_tokens):
        log.warning("%s%s", f"{name} " if name else "", line)
    return requests


def _by_question(examples: Sequence[Example]) -> list[Example]:
    """Each question as an example of its own. They keep their context's id: intervals are over contexts."""
    return [replace(example, questions=(question,)) for example in examples for question in example.questions]


def _line_break(model: Model) -> int:
    ids = model.encode("\n")
    if not ids:
        raise ConfigError("protocol.newline_stops=true: the model's tokenizer has no token for a line break")
    return ids[-1]


def cut_line(requests: Sequence[Request], truncation: str, max_new_tokens: int | None) -> str | None:
    """How many contexts were cut and by how much; None where none was."""
    shortened = [request for request in requests if request.cut_tokens]
    if not shortened:
        return None
    most = max(len(request.context_ids) + request.room(max_new_tokens) for request in shortened)
    median = sorted(request.cut_tokens for request in shortened)[len(shortened) // 2]
    return (
        f"contexts={len(requests)} cut={len(shortened)} truncation={truncation}: with question and answer they were "
        f"longer than {most} tokens (median cut {median})"
    )


def lines_about(requests: Sequence[Request], truncation: str, max_new_tokens: int | None) -> list[str]:
    """What a run says of its prepared requests."""
    return [line for line in (cut_line(requests, truncation, max_new_tokens), control_line(requests)) if line]


def control_line(requests: Sequence[Request]) -> str | None:
    """How many contexts or their questions hold tokens that steer the model, and which; None where none does."""
    found = [request.control for request in requests if request.control]
    if not found:
        return None
    names = ", ".join(sorted(set().union(*found)))
    return (
        f"contexts={len(requests)} with_control_tokens={len(found)} ({names}): the model reads them as its own signs, "
        "not as text"
    )


def control_tokens(model: Model, example: Example) -> tuple[str, ...]:
    """The control tokens of the model's tokenizer that stand in the texts of an example."""
    added = getattr(model.tokenizer, "added_tokens_decoder", {}).values()
    texts = [example.context, *(question.text for question in example.questions)]
    return tuple(token.content for token in added if token.special and any(token.content in text for text in texts))


def cut(ids: list[int], room: int, truncation: str, mark: Sequence[int] = ()) -> list[int]:
    """At most `room` ids: the first ones and the ids of `mark` (head), or as many from both ends (middle)."""
    if len(ids) <= room:
        return ids
    if truncation == "head":
        return [*ids[: max(1, room - len(mark))], *mark][:room]
    tail = room // 2
    return ids[: room - tail] + ids[len(ids) - tail :]


def load(cell: Cell) -> Model:
    """The model that the cell's settings name."""
    settings = cell.settings.model
    torch.set_num_threads(cell.settings.compute.threads)
    model = load_model(
        settings.path,
        name=cell.choices.model,
        revision=settings.revision,
        device=settings.device,
        dtype=settings.dtype,
        device_map=settings.device_map,
        attn_implementation=settings.attn_implementation,
        trust_remote_code=settings.trust_remote_code,
        max_context_length=settings.max_context_length,
        template=cell.settings.protocol.template,
        date=cell.settings.protocol.date,
        thinking=cell.settings.protocol.thinking,
    )
    if model.doubt:
        log.warning("%s", model.doubt)
    return model
