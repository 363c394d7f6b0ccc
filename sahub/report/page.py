"""The page: one HTML file that needs nothing else, made of the files of finished runs; its plots as files beside it."""

from collections.abc import Sequence
from dataclasses import asdict
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from sahub.extensions import all_of
from sahub.files.atomic import write_bytes, write_csv, write_text
from sahub.report.pictures import PALETTE, png
from sahub.report.plots import Plot, numbers
from sahub.report.run_files import RunFiles
from sahub.report.shown import Shown

HERE = Path(__file__).parent
PLOTLY = HERE / "vendor" / "plotly-cartesian.min.js"
MOST_DRAWN = 24  # panels of a PNG; the page and the CSV have all


def write_page(runs: Sequence[RunFiles], file: Path, *, every_picture: bool) -> None:
    """Write the page, and into `plots` beside it the numbers of all plots, and pictures (folded ones if asked)."""
    shown = Shown(runs)
    sections = [_section(module, shown) for module in all_of("report/sections")]
    sections = [section for section in sections if section["content"] is not None or section["plots"]]
    write_text(file, page(shown, sections))
    for plot, folded in ((plot, section["folded"]) for section in sections for plot in section["plots"]):
        write_csv(file.parent / "plots" / f"{plot.name}.csv", numbers(plot))
        if every_picture or not folded:  # a second or more each, which every run would pay
            drawn = Plot(name=plot.name, about=plot.about, panels=plot.panels[:MOST_DRAWN])
            write_bytes(file.parent / "plots" / f"{plot.name}.png", png(drawn))


def page(shown: Shown, sections: Sequence[dict[str, Any]]) -> str:
    """The HTML of these sections."""
    plots = {plot.name: asdict(plot) for section in sections for plot in section["plots"]}
    scripts = {"plotly": Markup(PLOTLY.read_text("utf-8")) if plots else ""}
    made = _templates().get_template("page.html.j2")
    return made.render(sections=sections, plots=plots, palette=PALETTE, runs=shown.runs, **scripts)


def _section(module: Any, shown: Shown) -> dict[str, Any]:
    """What a section says: its name, title, content for its template, and plots that are not empty."""
    name = module.__name__.rpartition(".")[2]
    own = f"sections/{name}.html.j2"
    plots = [plot for plot in (module.plots(shown) if hasattr(module, "plots") else ()) if plot.panels]
    return {
        "name": name,
        "title": module.TITLE,
        "folded": getattr(module, "FOLDED", False),
        "template": own if own in _templates().list_templates() else None,
        "content": module.content(shown) if hasattr(module, "content") else None,
        "plots": plots,
    }


@cache
def _templates() -> Environment:
    return Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
    )
