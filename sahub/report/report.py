"""What a run leaves for people: the summary file, the tables, the pictures and the page."""

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

from sahub.engine.model import Counters
from sahub.extensions import all_of
from sahub.files.atomic import write_json, write_text
from sahub.report.shown import Shown
from sahub.report.summary import summary
from sahub.report.terminal import display, markdown
from sahub.results.cell_result import CellResult


def write(
    root: Path, found: Sequence[CellResult], counters: Mapping[str, Counters], *, seconds: float, show: bool
) -> None:
    """`benchmark_summary.json`, `report.html`, `report.md` and pictures in `root`; with `show` the tables too."""
    content = summary(found, counters, seconds)
    write_json(root / "benchmark_summary.json", content)
    pictures = _pictures(found)
    for name, picture in pictures.items():
        (root / f"{name}.png").write_bytes(picture)
    rows, lines, work = content["cells"], content["headlines"], content["work"]
    shown = Shown(found=found, rows=rows, lines=lines, work=work, seconds=seconds, pictures=pictures)
    write_text(root / "report.html", page(shown))
    write_text(root / "report.md", markdown(content))
    if show and any(result.ok for result in found):
        display(root, content)


def _pictures(found: Sequence[CellResult]) -> dict[str, bytes]:
    """The pictures of all sections that are one, by the section's name."""
    logging.getLogger("matplotlib").setLevel(logging.ERROR)  # it warns of a home that cannot be written
    drawing = [section for section in all_of("report/sections") if hasattr(section, "picture")]
    drawn = {section.__name__.rpartition(".")[2]: section.picture(found) for section in drawing}
    return {name: picture for name, picture in drawn.items() if picture is not None}


def page(shown: Shown) -> str:
    """The report: one HTML file that needs nothing else."""
    sections = "\n".join(filter(None, (section.html(shown) for section in all_of("report/sections"))))
    return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>sahub report</title><style>
body {{ font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 110rem; padding: 0 1rem; color: #222; }}
table {{ border-collapse: collapse; font-size: 13px; }}
td, th {{ padding: .3rem .7rem; border-bottom: 1px solid #ddd; }}
th {{ text-align: left; background: #f4f4f4; }} td {{ white-space: nowrap; }} tr.bad td {{ color: #b00; }}
code {{ font-size: 12px; }} img {{ max-width: 100%; }} .wide {{ overflow-x: auto; }}
.note {{ color: #666; font-size: 13px; }}
</style></head><body><h1>sahub report</h1>
{sections}
</body></html>
"""
