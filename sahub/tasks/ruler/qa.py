"""Questions about a few documents among many: SQuAD 2.0 (qa_1) and HotpotQA (qa_2), from files of the user.

Differs  a question is of one split only; of HotpotQA's ten documents per question those that support the answer are
         always there, and the others are the first to be added; what whole documents leave is filled with a short one
"""

import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from random import Random
from typing import Any

from sahub.data import options
from sahub.data.examples import Example, Question, TaskSpec, split_of
from sahub.data.fitting import Budget, Draft, fitting, most, of_split
from sahub.errors import ConfigError, DataError, MissingFiles
from sahub.files.pointers import ADVICE as POINTER
from sahub.files.pointers import is_pointer

log = logging.getLogger(__name__)

INSTRUCTION = "Answer the question at the end from the following documents, in a few words and without an explanation."
SPARE = 500  # documents among which one is looked for that fills what is left


@dataclass
class Corpus:
    """Documents, each once, and what is asked about them."""

    documents: dict[str, int] = field(default_factory=dict)  # text -> number
    items: list["Item"] = field(default_factory=list)

    def add(self, text: str) -> int:
        """The number of a document."""
        return self.documents.setdefault(_text(text), len(self.documents))


@dataclass(frozen=True, kw_only=True)
class Item:
    """A question, its answers, and documents by number: those that hold the answer, and those most like them."""

    question: str
    answers: tuple[str, ...]
    own: tuple[int, ...]
    near: tuple[int, ...]


@dataclass(frozen=True)
class Source:
    """Where questions come from."""

    title: str
    file: str
    url: str
    read: Callable[[Any, Corpus], None]


def _squad(data: Any, corpus: Corpus) -> None:
    """Answerable questions; near are the other paragraphs of the article."""
    for article in data["data"]:
        numbers = [corpus.add(paragraph["context"]) for paragraph in article["paragraphs"]]
        for own, paragraph in zip(numbers, article["paragraphs"], strict=True):
            near = tuple(dict.fromkeys(number for number in numbers if number != own))
            answerable = [asked for asked in paragraph["qas"] if asked["answers"] and not asked.get("is_impossible")]
            corpus.items += [
                Item(question=_text(asked["question"]), answers=_texts(asked["answers"]), own=(own,), near=near)
                for asked in answerable
            ]


def _hotpot(data: Any, corpus: Corpus) -> None:
    """All questions; near are the documents of a question that do not support its answer."""
    for asked in data:
        numbers = {title: corpus.add(f"{title}\n{''.join(parts)}") for title, parts in asked["context"]}
        supporting = {title for title, _ in asked.get("supporting_facts") or ()} & numbers.keys()
        own = tuple(number for title, number in numbers.items() if title in supporting or not supporting)
        near = tuple(number for number in numbers.values() if number not in own)
        corpus.items.append(
            Item(question=_text(asked["question"]), answers=(_text(asked["answer"]),), own=own, near=near)
        )


SUBSETS = {
    "qa_1": Source(
        "SQuAD 2.0, dev",
        "dev-v2.0.json",
        "https://rajpurkar.github.io/SQuAD-explorer/dataset/dev-v2.0.json",
        _squad,
    ),
    "qa_2": Source(
        "HotpotQA, dev, distractor",
        "hotpot_dev_distractor_v1.json",
        "http://curtis.ml.cmu.edu/datasets/hotpot/hotpot_dev_distractor_v1.json",
        _hotpot,
    ),
}


def missing(spec: TaskSpec) -> str | None:
    """That the file of `options.file` (null: in the working directory) is not there, and how to get it; else None.

    Raises ConfigError for a wrong option.
    """
    options.check_names(spec, "file")
    options.whole(spec, "num_examples", 500, most=10**6)
    source, file = SUBSETS[spec.subset], spec.options.get("file")
    if file is not None and not isinstance(file, str):
        raise ConfigError(f"task.options.file={file}: must be the path of {source.file}")
    if _file(spec).is_file():
        return None
    what = f"{source.file} ({source.title})"
    told = f"no such file; it must be {what}" if file else f"there is no {what} in the working directory"
    address = f"task={spec.name}: task.options.file={file or 'null'}"
    return f"{address}: {told}:\n  curl -LO {source.url}\n  then run again, or add task.options.file=PATH"


def _file(spec: TaskSpec) -> Path:
    return Path(spec.options.get("file") or SUBSETS[spec.subset].file).expanduser()


def load(
    spec: TaskSpec, *, split: str, limit: int | None, length: int, count_tokens: Callable[[str], int], seed: int
) -> list[Example]:
    """Questions in an order drawn by `seed`, each with as many documents as `length` tokens hold, in random order.

    `limit` contexts (None: `options.num_examples`), fewer where the split has no more questions.

    Raises ConfigError for a wrong option, MissingFiles without the file, DataError for a file of another shape and
    where the length cannot hold the documents of a question.
    """
    if told := missing(spec):
        raise MissingFiles(told)
    corpus = _read(spec)
    wanted = options.whole(spec, "num_examples", 500, most=10**6) if limit is None else limit
    items = [item for item in corpus.items if split_of(item.question) == split]
    Random(f"{seed}/{spec.name}").shuffle(items)
    budget, texts = Budget(length, count_tokens), list(corpus.documents)

    def make(item: Item) -> Example:
        draw = _draws(item, texts, spec, budget)
        return of_split(draw, spec, budget, split, f"{seed}/{spec.name}/{length}/{item.question}")

    found = fitting((partial(make, item) for item in items), spec, wanted, split)
    if full := sum(f"\nDocument {len(texts)}:\n" in example.context for example in found):
        log.warning("task=%s contexts=%d hold all %d documents, there are no more", spec.name, full, len(texts))
    return found


def _draws(item: Item, texts: list[str], spec: TaskSpec, budget: Budget) -> Callable[[Random], Draft]:
    asked = Question(
        id="0",
        text=f"\n\nQuestion: {item.question}",
        answer_prefix="Answer:",
        references=item.answers,
        max_new_tokens=spec.max_new_tokens,
    )
    room = budget.room([asked])

    def draw(rng: Random) -> Draft:
        own, near = list(item.own), rng.sample(item.near, len(item.near))
        far = rng.sample(range(len(texts)), min(len(texts), max(room, 0)))
        others, seed = [*near, *(number for number in far if number not in {*own, *near})], rng.getrandbits(64)

        def build(count: int, more: tuple[int, ...] = ()) -> str:
            numbers = [*own, *others[:count], *more]
            Random(seed).shuffle(numbers)
            documents = (f"Document {place}:\n{texts[number]}" for place, number in enumerate(numbers, 1))
            return "\n\n".join([INSTRUCTION, *documents])

        needs = f"{len(own)} document{'s' if len(own) > 1 else ''} with the answer"
        found = most(build, room, budget.count, slack=budget.slack, limit=len(others))
        if found is None:
            return Draft(None, (asked,), needs)
        spare = sorted(others[found.units : found.units + SPARE], key=lambda number: len(texts[number]))
        one = most(lambda rank: build(found.units, tuple(spare[:rank][-1:])), room, budget.count, limit=len(spare))
        return Draft(found.text if one is None else one.text, (asked,), needs)

    return draw


def _read(spec: TaskSpec) -> Corpus:
    file, source, corpus = _file(spec), SUBSETS[spec.subset], Corpus()
    address = f"task.options.file={file}"
    try:
        if is_pointer(file):
            raise DataError(f"{address}: {POINTER}")
        source.read(json.loads(file.read_text(encoding="utf-8-sig")), corpus)
    except OSError as error:
        raise DataError(f"{address}: cannot be read ({error.strerror})") from None
    except UnicodeDecodeError as error:
        raise DataError(f"{address}: not UTF-8 (byte {error.start})") from None
    except json.JSONDecodeError as error:
        raise DataError(f"{address}: not JSON: {error}") from None
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        what = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise DataError(f"{address}: not the layout of {source.file} ({source.title}): {what}") from None
    if not corpus.items:
        raise DataError(f"{address}: holds no question with an answer; it must be {source.file} ({source.title})")
    return corpus


def _texts(answers: Any) -> tuple[str, ...]:
    return tuple(dict.fromkeys(_text(answer["text"]) for answer in answers))


def _text(value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise TypeError(f"{str(value)[:60]!r} stands where there must be a text")
    return value
