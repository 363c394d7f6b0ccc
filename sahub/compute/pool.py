"""Who works for a run: this process, or Ray's workers, with Ray started once whatever the number of models."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from sahub.compute.worker import Worker, Workers
from sahub.config.cell import Cell


@contextmanager
def ready(cells: Sequence[Cell]) -> Iterator[None]:
    """What all workers of a run need, as long as they do. Raises RunError where Ray cannot start."""
    asked = {cell.settings.compute for cell in cells} if cells else set()
    first = next(iter(asked), None)
    if first is None or len(asked) > 1 or first.name == "inline":
        yield  # cells that ask for different workers have each their own
        return
    from sahub.compute.ray_start import started  # seconds, which an inline run does not pay

    with started(first):
        yield


@contextmanager
def workers(cell: Cell, results: Path) -> Iterator[Workers]:
    """Those who do the work of a model, with it loaded. Raises what loading it raises.

    results  where Ray Tune writes
    """
    compute = cell.settings.compute
    if compute.name == "inline":
        yield Worker(cell)
        return
    from sahub.compute.ray_start import started  # seconds, which a run in this process does not pay

    with started(compute):
        from sahub.compute.ray_workers import RayWorkers  # seconds, which a run in this process does not pay

        with RayWorkers(cell, results) as found:
            yield found
