"""The text of `--help`: every key with its default, unit and range, and every choice, from the schema and the files."""

import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, dataclass
from pathlib import Path
from typing import Any

import yaml

from sahub.config.choices import GROUPS, UNREAD, group_choices
from sahub.config.ranges import allowed, keys, shown
from sahub.config.settings import Settings
from sahub.config.suites import suites_of

ABOUT = {
    "search": "Find the best configuration of a sparse-attention builder, then validate it on other examples.",
    "validate": "Run one configuration, or all winners of a run directory, on validation examples.",
    "doctor": (
        "Say what a model can be used for here: architecture, sparse path, dense accuracy, time and memory.\n"
        "With task= say what would spoil a run of that task: data, labels, lengths, truncation, scores at the floor."
    ),
    "bench": (
        "Measure what a decoding step of a builder costs on this machine, beside dense attention.\n"
        "Time part by part, bytes and memory at several lengths, and from which length on it is faster."
    ),
    "best": "Say which configuration is the best that is known, from the winners that searches left in the cache.",
}
EXAMPLES = {
    "search": """\
sahub {command} +experiment=debug                                   a small matrix, minutes on two cores
sahub {command} builder=quest objective=sparsity_5                  one search: 5 % of the keys
sahub {command} builder=quest builder.stages.quest.page_size=32     the page size is fixed, the rest is searched
sahub {command} -m 'task=glob(ruler/n*)' builder=quest,oracle_topk  every pair of task and builder
sahub {command} model=hf model.path=org/name task=loogle/shortdep_qa""",
    "validate": """\
sahub {command} configs=latest                                     the winners of the newest run
sahub {command} configs=multirun/2030-01-01_12-00-00               the winners of that one
sahub {command} builder=quest builder.stages.quest.page_size=32    this configuration""",
    "doctor": """\
sahub {command}                                                    the packaged model
sahub {command} model=hf model.path=org/name                       a model of the local cache, or of a folder
sahub {command} 'doctor.tasks=[ruler/niah_single_1]' 'doctor.lengths=[4096]'
sahub {command} doctor.tasks=[]                                    without asking it anything
sahub {command} task=longbench/qasper model=llama                  a task, as that model reads it
sahub {command} task=ruler/vt search.max_context_length=4096 doctor.dense=false""",
    "bench": """\
sahub {command} -m builder=quest,pqcache,snapkv                     in one table, beside dense
sahub {command} model=llama 'bench.lengths=[4096,16384]'            at these lengths
sahub {command} -m builder.stages.quest.page_size=16,32 objective=sparsity_5
sahub {command} compute.threads=2 bench.rounds=9""",
    "best": """\
sahub {command} builder=quest task=ruler/vt                        for this task, else for all, else the default
sahub {command} show=all builder=quest                             every winner of this builder
sahub {command} builder=quest save=mine/builder/my_quest.yaml      as a builder, for --config-dir mine""",
}


INDENT = 42  # column at which the explanation of a key starts


def help_text(command: str, roots: Sequence[Path]) -> str:
    """What `sahub <command> --help` prints; `roots` are the folders with configuration files."""
    defaults = _chosen(roots[0])
    lines = [
        ABOUT[command],
        "",
        f"  sahub {command} [-m] [+experiment=NAME] [GROUP=CHOICE ...] [KEY=VALUE ...]",
        "",
        "-m runs every combination of comma-separated values; task=glob(ruler/niah_*) names all that match,",
        "task=ruler/all and task=ruler/4096 all of a benchmark (at a length), also without -m;",
        "--help KEY explains one key, a section (search) or a stage (builder.stages.quest);",
        "--config-dir DIR adds a folder with files of your own; --cfg job prints the configuration and stops.",
        f"In a checkout `python -m pipelines.{command}` is the same.",
        "",
        "Examples",
        *(f"  {line.format(command=command)}" for line in EXAMPLES[command].splitlines()),
        "",
        "Groups: GROUP=CHOICE (* the default)",
        *_groups(command, roots, defaults),
        "",
        "Keys and their defaults; null stands for nothing [unit; range or choices]",
        *(line for _, text in described_keys(command, roots[0]) for line in text),
        "",
        "Stage fields: builder.stages.STAGE.FIELD=VALUE; typed, they leave the search space. + marks what is searched",
        *_stages(roots),
    ]
    return "\n".join(lines) + "\n"


def _read(file: Path) -> dict[str, Any]:
    return yaml.safe_load(file.read_text(encoding="utf-8")) or {}


def _chosen(root: Path) -> dict[str, str]:
    """Each group's default choice."""
    entries = _read(root / "search.yaml")["defaults"]
    return {group: name for entry in entries if isinstance(entry, dict) for group, name in entry.items()}


def _groups(command: str, roots: Sequence[Path], defaults: Mapping[str, str]) -> Iterator[str]:
    for group in GROUPS:
        if group in UNREAD[command]:
            continue
        names = [f"{name}*" if name == defaults.get(group) else name for name in group_choices(group, roots)]
        yield from wrapped(f"  {group + ' ':<12}", ", ".join(names))
        if group == "task":
            yield from wrapped("    suites    ", ", ".join(suites_of([name.rstrip("*") for name in names])))


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key of the settings: where it is, its default, what it is for, its unit and range."""

    path: str
    default: str
    about: str
    facts: Sequence[str]


def known_keys(command: str, root: Path) -> Iterator[Key]:
    """Every key that a command reads."""
    defaults = _chosen(root)
    files = {group: _read(root / group / f"{name}.yaml") for group, name in defaults.items() if group in GROUPS}
    files[""] = _read(root / "search.yaml") | _read(root / f"{command}.yaml")
    files |= {name: node for name, node in files[""].items() if isinstance(node, dict)}
    for path, item in keys(Settings):
        section, _, name = path.partition(".")
        if path in {"builder.stages", "builder.search", "builder.grid"} or section in UNREAD[command]:
            continue  # stages are below, one by one
        of_file = files.get(section, {}).get(name) if name else files[""].get(section)
        fallback = item.default if item.default is not MISSING else {}
        limits = item.metadata
        facts = [limits["unit"], ", ".join(limits["choices"]) or limits["expected"] or allowed(limits)]
        yield Key(
            path=path,
            default=shown(fallback if of_file is None else of_file),
            about=limits["help"],
            facts=[fact for fact in facts if fact],
        )


def described_keys(command: str, root: Path) -> Iterator[tuple[str, list[str]]]:
    """Every key that a command reads, with its lines of help."""
    return ((key.path, list(_described(key))) for key in known_keys(command, root))


def _described(key: Key) -> Iterator[str]:
    head = f"  {key.path}={key.default}"
    text = f"{key.about} [{'; '.join(key.facts)}]" if key.facts else key.about
    if len(head) >= INDENT:
        yield head
        head = ""
    yield from wrapped(f"{head:<{INDENT}}", text)


@dataclass(frozen=True, kw_only=True)
class StageOfBuilder:
    """A stage as a builder's file has it; `searched` are its free fields."""

    builder: str
    label: str
    fields: Mapping[str, Any]
    searched: Mapping[str, Any]

    @property
    def method(self) -> str:
        """The name of its method."""
        return str(self.fields.get("method", self.label))

    def facts(self, only: str | None = None) -> list[str]:
        """Its fields, or one of them, with their values; + marks what is searched."""
        fields = {name: value for name, value in self.fields.items() if only in (None, name)}
        return [f"{'+' if name in self.searched else ''}{name}={shown(value)}" for name, value in fields.items()]


def stages_of(roots: Sequence[Path]) -> Iterator[StageOfBuilder]:
    """The stages of every builder of these folders."""
    for root in roots:
        for name in group_choices("builder", [root]):
            builder = _read(root / "builder" / f"{name}.yaml")
            for label, fields in (builder.get("stages") or {}).items():
                free = (builder.get("search") or {}).get(label) or {}
                yield StageOfBuilder(builder=name, label=label, fields=fields or {}, searched=free)


def _stages(roots: Sequence[Path]) -> Iterator[str]:
    described = {}
    for root in roots:
        for name in group_choices("builder", [root]):
            described[name] = _read(root / "builder" / f"{name}.yaml").get("description", "")
    stages = list(stages_of(roots))
    for name, text in described.items():
        yield from wrapped(f"  {name + ' ':<16}", text)
        for stage in (one for one in stages if one.builder == name):
            yield from wrapped(f"    {stage.label + ' ':<14}", " ".join(stage.facts()))


def wrapped(head: str, text: str) -> list[str]:
    return textwrap.wrap(text, 118, initial_indent=head, subsequent_indent=" " * len(head), break_on_hyphens=False) or [
        head.rstrip()
    ]
