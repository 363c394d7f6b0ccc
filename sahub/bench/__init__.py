"""What a decoding step of each builder costs beside dense on this machine: `sahub bench`."""

from collections.abc import Sequence
from pathlib import Path

from sahub.config.cell import Cell
from sahub.errors import ConfigError, MissingFiles
from sahub.models.weights import missing


def bench(cells: Sequence[Cell], directory: Path) -> None:
    """Measure every builder of the cells at every length; print a table, and write it to the directory of the run.

    Raises SahubError before anything is loaded where a cell cannot be measured.
    """
    for cell in cells:
        settings = cell.settings
        if not settings.bench.lengths:
            raise ConfigError("bench.lengths=[]: must name at least one length (tokens)")
        if told := missing(settings.model.path, settings.model.revision):
            raise MissingFiles(told)
    from sahub.bench.run import run  # imports torch: only once everything cheap is right

    run(cells, directory)
