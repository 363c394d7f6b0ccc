"""The tables of a run on a terminal and in a document."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sahub.report.columns import LEFT, ONLY_IN_HTML, note, texts_of
from sahub.report.tables import ComparedRows, Row, tables


def display(root: Path, summary: Mapping[str, Any]) -> None:
    """The tables on standard output, as wide as they must be: a wrapped table cannot be read."""
    for compared in tables(summary["cells"]):
        drawn = _drawn(compared)
        wide = Console(width=1000).measure(drawn).maximum
        Console(width=max(wide, Console().width)).print(drawn)
    console = Console(soft_wrap=True, highlight=False)
    console.print(note(summary["cells"]), style="dim")
    for line in [*summary["headlines"], *work_lines(summary["work"], summary["seconds"]), f"files: {root}"]:
        console.print(line)


def markdown(summary: Mapping[str, Any]) -> str:
    """The tables for a document."""
    parts = []
    for compared in tables(summary["cells"]):
        title, names, lines = contents(compared)
        sides = [":--" if name in LEFT else "--:" for name in names]
        body = "".join(f"| {' | '.join(line)} |\n" for line in [names, sides, *lines])
        parts += [title, "", body]
    return "\n".join([*parts, *(f"{line}\n" for line in summary["headlines"]), note(summary["cells"]), ""])


def contents(compared: ComparedRows) -> tuple[str, list[str], list[list[str]]]:
    """Title, columns and lines of a table; what is the same in every row stands above it, to keep it narrow."""
    texts = texts_of(compared.rows)
    same = {name: {text[name] for text in texts} for name in ("sparse in", "objective", "asked", "n")}
    shared = {name: one for name, (one, *more) in same.items() if not more and one != "-"}
    models = ", ".join(sorted({named(row) for row in compared.rows}))
    said = [f"model {models}", *(f"{name} {text}" for name, text in shared.items()), compared.apart]
    title = ", ".join(filter(None, said))
    empty = {name for name in texts[0] if all(text[name] == "-" for text in texts)}
    names = [name for name in texts[0] if name not in {*shared, *empty, *ONLY_IN_HTML}]
    return title, names, [[text[name] for name in names] for text in texts]


def named(row: Row) -> str:
    """The model, with how its weights are stored where they are unpacked to be run."""
    return f"{row['model']} ({row['weights']})" if row["weights"] else str(row["model"])


def work_lines(work: Mapping[str, Mapping[str, int]], seconds: float) -> list[str]:
    """What was loaded, prefilled and generated, per model."""
    return [
        f"{name}: model loads {done['loads']}, contexts {done['contexts']}, prefills {done['prefills']} "
        f"({done['prefill_tokens']} tokens), generated tokens {done['generated_tokens']}, contexts x stacks computed "
        f"{done['computed']}, from the cache {done['served']}; {seconds:.0f} s in all"
        for name, done in work.items()
    ]


def _drawn(compared: ComparedRows) -> Table:
    title, names, lines = contents(compared)
    drawn = Table(title=title, title_justify="left", header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in names:
        drawn.add_column(name, justify="left" if name in LEFT else "right", no_wrap=True)
    for one, line in zip(compared.rows, lines, strict=True):
        drawn.add_row(*line, style=None if one["ok"] else "red")
    return drawn
