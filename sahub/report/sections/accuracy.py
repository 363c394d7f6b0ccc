"""How accurate each configuration is, and how many times fewer keys or bytes it reads."""

from collections.abc import Iterator
from typing import Any

from sahub.report.answers import dense_band, named, scored_sparse
from sahub.report.plots import Marks, Panel, Plot
from sahub.report.run_files import CellFiles
from sahub.report.shown import Shown, where, who

PLACE = 3
TITLE = "Accuracy against what is read"
ABOUT = (
    "Dots: the winners on questions that no search has seen, with 95 % intervals; rings: the builder's default, joined "
    "to its winner; band: dense. Further right is cheaper, further up is better. Oracles are bounds: they look at "
    "every key to choose some."
)


def plots(shown: Shown) -> list[Plot]:
    """See sahub.report.sections."""
    groups = list(shown.by(where))
    keys = [_panel(shown, name, cells, "keys") for name, cells in groups]
    read = [_panel(shown, name, cells, "bytes") for name, cells in groups]
    return [
        Plot(name="accuracy", about=ABOUT, panels=[panel for panel in keys if panel]),
        Plot(
            name="accuracy_by_bytes",
            about="The same against the bytes that a decode step reads, those of an index included.",
            panels=[panel for panel in read if panel],
        ),
    ]


def _panel(shown: Shown, name: str, cells: list[CellFiles], what: str) -> Panel | None:
    scored = scored_sparse(cells)
    marks = [one for cell in scored for one in _marks(shown, cell, what)]
    if not marks:
        return None
    band = dense_band(scored[0].row)
    return Panel(title=name, x=f"times fewer {what} read", y="accuracy, %", marks=marks, band=band, x_log=True)


def _marks(shown: Shown, cell: CellFiles, what: str) -> Iterator[Marks]:
    row, colour = cell.row, shown.colours[cell.row["builder"]]
    found = row["validation"]
    tuned = _point(cell, found["measures"], found["sparse_score"], what)
    first = _point(cell, found.get("default_measures"), found.get("default_score"), what)
    if tuned is None:
        return
    name = named(who(row), row)
    if first is not None:
        about = [f"{name}, the default"]
        yield Marks(name=name, x=[first[0], tuned[0]], y=[first[1], tuned[1]], style="line", colour=colour)
        yield Marks(name=f"{name}, default", x=[first[0]], y=[first[1]], style="ring", colour=colour, about=about)
    score = found["sparse_score"]
    yield Marks(
        name=name, x=[tuned[0]], y=[tuned[1]], low=[100 * score["low"]], high=[100 * score["high"]], colour=colour,
        about=[f"{name}: {tuned[1]:.1f} % at density {found['measures']['density']:.3f}"],
        paste=[cell.best.get("commands", {}).get("validate", "")],
    )  # fmt: skip


def _point(cell: CellFiles, measures: Any, score: Any, what: str) -> tuple[float, float] | None:
    """By what factor less is read than by dense, and the accuracy in percent."""
    if not measures or not score:
        return None
    if what == "keys":
        return 1 / measures["density"], 100 * score["mean"]
    dense, sparse = cell.metrics("dense").get("measures", {}).get("bytes_per_step"), measures.get("bytes_per_step")
    return (dense / sparse, 100 * score["mean"]) if dense and sparse else None
