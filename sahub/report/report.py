"""What a run leaves for people: the summary file, the tables, the page and its pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sahub.engine.model import Counters
from sahub.files.atomic import write_json, write_text
from sahub.report.page import write_page
from sahub.report.run_files import FILE, RunFiles
from sahub.report.summary import summary
from sahub.report.terminal import display, markdown
from sahub.results.cell_result import CellResult


def write(
    root: Path, found: Sequence[CellResult], counters: Mapping[str, Counters], *, seconds: float, show: bool
) -> None:
    """`benchmark_summary.json`, `report.html`, `report.md` and `plots` in `root`; with `show` the tables too."""
    content = summary(found, counters, seconds)
    write_json(root / FILE, content)
    write_text(root / "report.md", markdown(content))
    write_page([RunFiles(root=root, summary=content)], root / "report.html")
    if show and any(result.ok for result in found):
        display(root, content)
