"""Write docs/reference from the schema, the configuration and the code: `python docs/make_reference.py`."""

import ast
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import MISSING, fields
from pathlib import Path

from sahub import extensions
from sahub.cli.help import Key, known_keys, stages_of
from sahub.config.choices import COMMANDS, GROUPS, conf_dir, group_choices
from sahub.config.ranges import shown
from sahub.config.suites import suites_of
from sahub.measures import MEASURES
from sahub.report.columns import COLUMNS, MEANINGS
from sahub.results.cell_files import RAW_COLUMNS

FOLDER = Path(__file__).parent / "reference"
MADE = "<!-- made by docs/make_reference.py -->"
PACKAGE = Path(extensions.__file__).parent


def settings() -> str:
    """Every key that can be set, group by group, and what can be chosen."""
    of_command = {name: {key.path: key for key in known_keys(name, conf_dir())} for name in COMMANDS}
    every = {path: key for name in reversed(COMMANDS) for path, key in of_command[name].items()}
    sections: dict[str, list[Key]] = {}
    for path, key in every.items():
        sections.setdefault(path.partition(".")[0] if "." in path else "", []).append(key)
    readers = {path: [name for name, found in of_command.items() if path in found] for path in every}
    lines = [
        "# Settings",
        MADE,
        "`key=value` on a command line, or in a file of a group. `null` stands for nothing. The defaults are those of "
        "the choices that are made where nothing is typed. Stages have keys too: [stages](stages.md).",
        *_groups(),
    ]
    for section, found in sections.items():
        rows = [_key(key, readers[key.path]) for key in found]
        lines += [f"## {section or 'Keys without a group'}", _table(("key", "default", "what it is", "read by"), rows)]
    return _page(lines)


def stages() -> str:
    """Every method with its fields, and every builder with its stages."""
    lines = [
        "# Stages and builders",
        MADE,
        "A stage field is set with `builder.stages.STAGE.FIELD=VALUE`; typed, it leaves the search. `python -m "
        "pipelines.search --help builder.stages.STAGE` says the same on a terminal.",
        "## Methods",
    ]
    for name in extensions.members("methods"):
        cls = extensions.method(name, "docs")
        about = " ".join((cls.__doc__ or "").strip().split("\n\n")[0].split())
        rows = [_field(one) for one in fields(cls)]
        lines += [f"### {name}", about]
        lines += [_table(("field", "default", "unit", "searched, where a stack is composed"), rows)] if rows else []
    lines += ["## Builders", "What is searched is marked with +."]
    found = list(stages_of([conf_dir()]))
    names = group_choices("builder", [conf_dir()])
    rows = [(f"`{name}`", "<br>".join(_stage(one) for one in found if one.builder == name)) for name in names]
    return _page([*lines, _table(("builder", "stages"), rows)])


def results() -> str:
    """What stands in the table, in the files, and what a stack can be judged by."""
    measures = [
        (f"`{name}`", _first_line("measures", name), one.fidelity, "higher" if one.higher_is_better else "lower")
        for name, one in MEASURES.items()
    ]
    sections = [(_assigned(file, "TITLE"), _docstring(file)) for file in _by_place("report/sections")]
    lines = [
        "# Results",
        MADE,
        "The [files of a run](../results.md) say what lies where, [words](../results.md#words) what the numbers mean.",
        "## Measures",
        "What an objective can minimise, `objective.measure=`, and the cheapest `search.fidelity` that has it.",
        _table(("measure", "what it is", "fidelity", "better is"), measures),
        "## Columns of the table",
        ", ".join(f"`{name}`" for name in COLUMNS) + ".",
        _table(("columns", "meaning"), MEANINGS.items()),
        "## Columns of raw_results.csv",
        ", ".join(f"`{name}`" for name in RAW_COLUMNS) + ".",
        "## Sections of the report",
        _table(("section", "what it shows"), sections),
    ]
    return _page(lines)


PAGES = {"settings.md": settings, "stages.md": stages, "results.md": results}


def _groups() -> Iterator[str]:
    yield "## Groups"
    rows = []
    for group in GROUPS:
        names = group_choices(group, [conf_dir()])
        suites = suites_of(names) if group == "task" else []
        rows.append((f"`{group}=`", ", ".join(f"`{name}`" for name in [*names, *suites])))
    yield _table(("group", "choices"), rows)


def _key(key: Key, readers: Sequence[str]) -> tuple[str, ...]:
    facts = f" ({'; '.join(key.facts)})" if key.facts else ""
    default = "(none)" if key.default == "???" else key.default
    return (
        f"`{key.path}`",
        _code(default),
        f"{key.about}{facts}",
        "all" if len(readers) == len(COMMANDS) else ", ".join(readers),
    )


def _stage(one) -> str:
    return f"`{one.label}` {_code(' '.join(one.facts()))}".strip()


def _field(one) -> tuple[str, ...]:
    search = one.metadata.get("search")
    default = "" if one.default is MISSING else _code(shown(one.default))
    return f"`{one.name}`", default, one.metadata.get("unit", ""), _code(shown(search)) if search else ""


def _code(text: str) -> str:
    return f"`{text}`" if text else ""


def _first_line(family: str, name: str) -> str:
    return _docstring(PACKAGE / family / f"{name}.py")


def _docstring(file: Path) -> str:
    return (ast.get_docstring(ast.parse(file.read_text("utf-8"))) or "").splitlines()[0]


def _assigned(file: Path, name: str) -> str:
    return re.search(rf'^{name} = "?(.*?)"?$', file.read_text("utf-8"), re.MULTILINE)[1]


def _by_place(family: str) -> list[Path]:
    files = [file for file in (PACKAGE / family).glob("*.py") if not file.name.startswith("_")]
    return sorted(files, key=lambda file: (int(_assigned(file, "PLACE")), file.name))


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    written = [
        " | ".join(cell.replace("|", "\\|").replace("<", "&lt;").replace("&lt;br>", "<br>") for cell in row)
        for row in rows
    ]
    return "\n".join([f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {row} |" for row in written)])


def _page(lines: Iterable[str]) -> str:
    return "\n\n".join(lines) + "\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for name, made in PAGES.items():
        (FOLDER / name).write_text(made(), "utf-8")
