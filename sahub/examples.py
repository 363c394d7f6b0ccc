"""What a task hands to the engine: contexts with their questions, and the way every benchmark is loaded and split."""

import hashlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from importlib import import_module
from pkgutil import iter_modules
from types import ModuleType
from typing import Any

from sahub import extensions
from sahub.errors import ConfigError, DataError

log = logging.getLogger(__name__)

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


def load_examples(
    spec: TaskSpec,
    *,
    split: str,
    limit: int | None,
    length: int,
    count_tokens: Callable[[str], int],
    seed: int = 0,
    at_least: int = 1,
) -> list[Example]:
    """Load at most `limit` contexts of one split; `length` is what generated prompts are fitted to, in tokens.

    Raises ConfigError for an unknown benchmark, split or limit, MissingFiles for data that are not on this machine, and
    DataError for data of another shape or fewer than `at_least` contexts.
    """
    if split not in SPLITS:
        raise ConfigError(f"split={split}: must be one of {', '.join(SPLITS)}")
    if limit is not None and limit < 1:
        raise ConfigError(f"limit={limit}: must be at least 1 context, or null for all")
    benchmark = _benchmark(spec.benchmark)

    def load(which: str, most: int | None) -> list[Example]:
        found: list[Example] = benchmark.load(
            spec, split=which, limit=most, length=length, count_tokens=count_tokens, seed=seed
        )
        return found

    examples = load(split, limit)
    strays = [example.id for example in examples if split_of(example.context) != split]
    if strays:
        raise DataError(f"task={spec.name}: {len(strays)} contexts (first {strays[0]}) are not of the {split} split")
    if len(examples) < at_least:
        counts = {which: len(load(which, None)) for which in SPLITS}
        raise DataError(
            f"task={spec.name}: too few contexts: {len(examples)} for {split}, at least {at_least} needed; there are "
            f"{sum(counts.values())} in all: {counts['search']} search, {counts['validate']} validate"
        )
    log.info("task=%s split=%s contexts=%d questions=%d", spec.name, split, len(examples), questions_of(examples))
    return examples


def questions_of(examples: list[Example]) -> int:
    """How many questions these contexts have together."""
    return sum(len(example.questions) for example in examples)


def missing(spec: TaskSpec) -> str | None:
    """What has to be fetched before this task can be loaded, with the command that fetches it; None when nothing.

    No network, and no data read but a text that an option names. Raises ConfigError for an unknown benchmark or option,
    DataError where such a text holds nothing.
    """
    look = getattr(_benchmark(spec.benchmark), "missing", None)
    found: str | None = None if look is None else look(spec)
    return found


def _benchmark(name: str) -> ModuleType:
    # By name, not by an import statement: tasks import this module.
    family = import_module("sahub.tasks").__path__
    choices = sorted(module.name for module in iter_modules(family) if not module.name.startswith("_"))
    if name in choices:
        return import_module(f"sahub.tasks.{name}")
    found = extensions.module_of(name)
    if found is not None:
        return found if hasattr(found, "load") else import_module("sahub.tasks._prompts")
    choices += extensions.names()
    close = get_close_matches(name, choices, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    raise ConfigError(f"task.benchmark={name}: must be one of {', '.join(choices)}{hint}")
