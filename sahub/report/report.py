"""What a run leaves for people: the summary file, the tables, the page and its pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from sahub.engine.model import Counters
from sahub.errors import ConfigError
from sahub.files.atomic import write_json, write_text
from sahub.report.page import write_page
from sahub.report.run_files import FILE, RunFiles, read_runs
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
    write_page([RunFiles(root=root, summary=content)], root / "report.html", every_picture=False)
    if show and any(result.ok for result in found):
        display(root, content)


def write_report(runs: str | Path | Sequence[str | Path], file: str | Path | None = None) -> Path:
    """Write one page of finished runs, and its plots beside it; where it is.

    runs  directories, or folders with directories of runs below them
    file  None: `report.html` in the directory of a single run, in the working directory for several

    Raises MissingFiles for a folder without a run, DataError for files that are not those of a run, ConfigError for a
    file that is no page.
    """
    found = read_runs([runs] if isinstance(runs, str | Path) else runs)
    usual = (found[0].root if len(found) == 1 else Path()) / "report.html"
    page = usual if file is None else Path(file).expanduser()
    if page.suffix != ".html":
        raise ConfigError(f"output={file}: must be a file NAME.html")
    write_page(found, page, every_picture=True)
    return page
