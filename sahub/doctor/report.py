"""What checks found: facts for a file, rows for people, and a verdict in plain words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from rich.text import Text

WIDTH = 120  # of a table that goes to a file
Rows = Sequence[tuple[str, str]]  # what, and what was found


@dataclass
class Report:
    """The findings about one subject, section by section."""

    subject: str
    facts: dict[str, Any] = field(default_factory=dict)
    rows: dict[str, Rows] = field(default_factory=dict)
    good_for: list[str] = field(default_factory=list)
    not_for: list[tuple[str, str]] = field(default_factory=list)  # what, because of what
    problems: list[str] = field(default_factory=list)  # each of them rules out any use

    def add(self, section: str, facts: Mapping[str, Any] | Sequence[Any], rows: Rows) -> None:
        """A section: its facts under their names, and the rows that people read."""
        self.facts[section.replace(" ", "_")] = facts
        self.rows[section] = rows

    @property
    def usable(self) -> bool:
        """Whether nothing rules it out."""
        return not self.problems

    @property
    def verdict(self) -> str:
        """One line: what it can be used for, what not, and why."""
        if self.problems:
            return (
                f"can be used for: nothing here. not for: any search or validation because {'; '.join(self.problems)}"
            )
        unfit = "; ".join(f"{what} because {why}" for what, why in self.not_for) or "nothing that was checked"
        return f"can be used for: {'; '.join(self.good_for)}. not for: {unfit}"

    def document(self) -> dict[str, Any]:
        """What `doctor.json` holds."""
        return {
            "subject": self.subject,
            "usable": self.usable,
            "verdict": self.verdict,
            "problems": self.problems,
            "good_for": self.good_for,
            "not_for": [{"what": what, "because": why} for what, why in self.not_for],
            **self.facts,
        }


def show(report: Report, file: Path) -> None:
    """The table and the verdict on standard output."""
    console = Console()
    if not console.is_terminal:
        console = Console(width=max(WIDTH, console.width))
    if report.rows:
        console.print(table(report))
    style = "bold green" if report.usable else "bold red"
    line = Console(soft_wrap=True, highlight=False)
    line.print(Text(f"verdict: {report.verdict}", style=style))
    line.print(Text(f"files: {file}"))


def table(report: Report) -> Table:
    """All rows, section by section."""
    drawn = Table(title=report.subject, title_justify="left", show_header=False, box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    drawn.add_column(style="bold", no_wrap=True)
    drawn.add_column(no_wrap=True)
    drawn.add_column(overflow="fold")
    for section, rows in report.rows.items():
        for number, (what, found) in enumerate(rows):
            last = number == len(rows) - 1
            drawn.add_row(section if number == 0 else "", what, Text(found), end_section=last)
    return drawn


def bytes_text(count: float) -> str:
    """A number of bytes as people say it, in powers of ten."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.1f} TB"


def count_text(count: int) -> str:
    """A large number, such as 3.4 M or 8.03 B."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
