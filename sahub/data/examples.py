"""What a task hands to the engine: contexts with their questions, which of two splits they are of, in which order."""

import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from sahub.errors import ConfigError

SPLITS = ("search", "validate")


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question about a context; the prompt is context + text + answer_prefix."""

    id: str  # unique within its example
    text: str
    answer_prefix: str = ""  # forced at the start of the answer, after the chat template's turn
    references: tuple[str, ...]  # gold answers; a cloze reference is one JSON object: mask name -> entity
    max_new_tokens: int
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what its benchmark groups by


@dataclass(frozen=True, kw_only=True)
class Example:
    """One context with its questions: the unit of splitting, caching and confidence intervals."""

    id: str  # example_id(context)
    context: str
    questions: tuple[Question, ...]
    cut_mark: str = ""  # what its data put in place of the end of the context where only its head fits


@dataclass(frozen=True, kw_only=True)
class TaskSpec:
    """One `conf/task/<benchmark>/<subset>.yaml`."""

    benchmark: str  # the module of sahub.tasks that loads it
    subset: str
    metric: str  # the per-example score that stands for the task
    max_new_tokens: int  # tokens of an answer
    version: int = 1  # raised whenever a change moves scores
    path: str | None = None  # a local folder or file; wins over `dataset`
    dataset: str | None = None  # a dataset repository
    revision: str | None = None  # a branch, tag or commit of `dataset`; None: what is in the cache
    config: str | None = None  # the configuration of `dataset`, the folder of its files; None: the subset's name
    split: str = "test"  # of `dataset`; nothing to do with search and validate
    files: str | None = None  # a glob over the files of `dataset`; None: all in the folder `config`
    where: Mapping[str, Any] = field(default_factory=dict)  # column -> value: the rows that are the task's
    licence: str | None = None  # of the data
    source: str | None = None  # `generated` or `files`; None: files where `path` or `dataset` is given
    length: int | None = None  # tokens that prompts are generated at, or exist at; None: what the run asks for
    options: Mapping[str, Any] = field(default_factory=dict)  # the benchmark's own (num_examples, questions, ...)
    protocol: Mapping[str, Any] = field(default_factory=dict)  # how its authors ask it; loaders do not read it

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise ConfigError(f"task.max_new_tokens={self.max_new_tokens}: must be at least 1 token")
        if self.source not in (None, "generated", "files"):
            raise ConfigError(f"task.source={self.source}: must be generated, files or null")
        if self.source == "generated" and self.path is not None:
            raise ConfigError(f"task.source=generated: reads no data, so task.path={self.path} must be null")
        if len(self.where) > 1:
            raise ConfigError(f"task.where={dict(self.where)}: must name one column at most")

    @property
    def name(self) -> str:
        """The task's name everywhere: `benchmark/subset`."""
        return f"{self.benchmark}/{self.subset}"

    @property
    def is_generated(self) -> bool:
        """Whether contexts are drawn, as many as are asked for, and no rows are read."""
        return self.source == "generated" or not (self.path or self.dataset or self.source)

    @property
    def folder(self) -> str:
        """The configuration of the dataset."""
        return self.config or self.subset


def _digest(text: str) -> bytes:
    # Lone surrogates are legal in JSON data and have no strict UTF-8 form.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def example_id(context: str) -> str:
    """The first 16 hex digits of sha256(context)."""
    return _digest(context).hex()[:16]


def split_of(context: str) -> str:
    """`search` for a quarter of all contexts, `validate` for the rest: by sha256, so alike in every subset."""
    return "search" if _digest(context)[-1] % 4 == 0 else "validate"


def shuffled(
    examples: list[Example], *, seed: int, limit: int | None, group: Callable[[Example], str] = lambda example: ""
) -> list[Example]:
    """The first `limit` examples in a seeded order that no order of files moves; smaller limits are its beginnings.

    Every beginning has of each `group` its share: the i-th of its n examples stands at (i + 1/2) / n of the way.
    """
    ordered = sorted(examples, key=lambda example: _digest(f"{seed}:{example.id}"))
    sizes, before = Counter(map(group, ordered)), Counter[str]()
    places = []
    for example in ordered:
        name = group(example)
        places.append((before[name] + 0.5) / sizes[name])
        before[name] += 1
    spread = [ordered[index] for index in sorted(range(len(ordered)), key=places.__getitem__)]
    return spread if limit is None else spread[:limit]


def questions_of(examples: list[Example]) -> int:
    """How many questions these contexts have together."""
    return sum(len(example.questions) for example in examples)
