"""What the page of a run is made of."""

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sahub.results.cell_result import CellResult


@dataclass(frozen=True, kw_only=True)
class Shown:
    """How the cells ended, and what was made of that for people.

    rows      of the summary file, one a cell
    lines     of headlines, for people
    work      model -> receipts
    pictures  section -> PNG
    """

    found: Sequence[CellResult]
    rows: Sequence[Mapping[str, Any]]
    lines: Sequence[str]
    work: Mapping[str, Mapping[str, int]]
    seconds: float
    pictures: Mapping[str, bytes]

    def image(self, name: str, alt: str) -> str:
        """A picture with its heading, inside the page; empty where there is none."""
        if name not in self.pictures:
            return ""
        data = base64.b64encode(self.pictures[name]).decode()
        return f'<h2>{name.capitalize()}</h2><img alt="{alt}" src="data:image/png;base64,{data}">'
