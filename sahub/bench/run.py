"""Measure the builders of cells, those of one model beside each other."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sahub.attention.stack import Stack
from sahub.bench import files, table
from sahub.bench.findings import Findings
from sahub.config.cell import Cell
from sahub.engine.requests import load
from sahub.engine.session import Attention
from sahub.errors import ConfigError
from sahub.models.reading import read_config
from sahub.models.supported import check_supported, geometry, reads_at_most
from sahub.models.weights import locate
from sahub.progress import Display
from sahub.results.cell_files import versions
from sahub.search.trial import attention_of
from sahub.timing.machine import machine
from sahub.timing.measure import Measured, measured

DENSE = "dense"  # the builder that is always there


@dataclass(frozen=True, kw_only=True)
class Side:
    """The builders of one model and protocol, by the names of their rows."""

    cells: Mapping[str, Cell]
    attentions: Mapping[str, Attention]

    @property
    def first(self) -> Cell:
        """The cell that stands for what all share."""
        return next(iter(self.cells.values()))

    @property
    def stages(self) -> dict[str, Any]:
        """The stages of every builder."""
        return {name: cell.builder["stages"] for name, cell in self.cells.items()}

    @property
    def stacks(self) -> dict[str, Stack]:
        """Without dense, which stands beside them anyway."""
        return {name: one.stack for name, one in self.attentions.items() if one.stack and not one.stack.is_dense}


def run(cells: Sequence[Cell], directory: Path) -> None:
    """See `bench`."""
    sides = list(_sides(cells))
    for side in sides:
        _check(side)
    lengths = _lengths(cells[0])
    if any(cell.settings.dry_run for cell in cells):
        names = ", ".join(f"{side.first.choices.model}: {', '.join([DENSE, *side.stacks])}" for side in sides)
        sys.stdout.write(f"{names} at {', '.join(map(str, lengths))} tokens\n")
        return
    found: list[Findings] = []
    try:
        with Display({"bench": len(sides) * len(lengths)}, "lengths") as display:
            for found in _every(sides, display):
                files.write(directory, found, versions())
        files.draw(directory, found)
    finally:
        if found:  # however it ends: what was measured is shown
            table.show(found, directory)


def _sides(cells: Sequence[Cell]) -> Iterator[Side]:
    """The cells of each model together."""
    left = list(cells)
    while left:
        first = left[0]
        same = [cell for cell in left if _alike(cell, first)]
        left = [cell for cell in left if not _alike(cell, first)]
        named = {_name(cell, same): cell for cell in same}
        yield Side(cells=named, attentions={name: attention_of(cell, ()) for name, cell in named.items()})


def _alike(one: Cell, other: Cell) -> bool:
    """Whether one loaded model serves both."""
    mine, theirs = one.settings, other.settings
    return (mine.model, mine.protocol, mine.compute) == (theirs.model, theirs.protocol, theirs.compute)


def _name(cell: Cell, beside: Sequence[Cell]) -> str:
    """The builder, with what was typed that some of the others do not have."""
    own = [item for item in cell.overrides if any(item not in other.overrides for other in beside)]
    own = [item.removeprefix("builder.stages.") for item in own if not item.startswith("builder=")]
    return " ".join([cell.choices.builder, *own])


def _check(side: Side) -> None:
    """Raise SahubError for a model, lengths or stacks that cannot be measured, before any is loaded."""
    settings = side.first.settings
    config = read_config(settings.model.path, settings.model.revision, settings.model.trust_remote_code)
    check_supported(config, locate(settings.model.path))
    most, longest = settings.model.max_context_length or reads_at_most(config), max(settings.bench.lengths)
    if most and longest > most:
        raise ConfigError(
            f"bench.lengths={longest}: longer than the {most:,} tokens that the model reads; "
            "model.max_context_length raises it"
        )
    for attention in side.attentions.values():
        attention.check(geometry(config))


def _lengths(cell: Cell) -> list[int]:
    """Those that are asked for, each once."""
    return list(dict.fromkeys(cell.settings.bench.lengths))


def _every(sides: Sequence[Side], display: Display) -> Iterator[list[Findings]]:
    """Those of the models so far, after each length of each."""
    done: list[Findings] = []
    for side in sides:
        for one in _findings(side, display):
            yield [*done, one]
        done.append(one)


def _findings(side: Side, display: Display) -> Iterator[Findings]:
    """Load the model, and measure its builders length by length; what is there after each."""
    cell, settings = side.first, side.first.settings
    model, dense_layers = load(cell), settings.protocol.dense_layers
    steps: list[Measured] = []
    for length in _lengths(cell):
        with display.steps("bench", f"{cell.choices.model} at {length:,}"):
            steps += measured(
                model,
                [length],
                side.stacks,
                rounds=settings.bench.rounds,
                dense_layers=dense_layers,
                seed=settings.bench.seed,
            )
        yield Findings(
            model=cell.choices.model,
            dtype=str(model.hf.dtype).removeprefix("torch."),
            layers=len(model.geometry.layers) - len(set(dense_layers)),
            machine=machine(model.device),
            measured=tuple(steps),
            stages=side.stages,
            overrides=cell.overrides,
        )
