"""One row of a data file: its cells, read as what a task needs, or refused by file, row and column."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeGuard

from sahub.errors import DataError


@dataclass(frozen=True)
class Row:
    """The columns of a row that a task asked for, and where the row stands."""

    values: Mapping[str, Any]
    address: str  # file and row

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def error(self, name: str, must: str) -> DataError:
        """What is wrong with a cell: `file: row 3: column answer is nan (float): must be text`."""
        value = self.values.get(name)
        kind = "" if value is None else f" ({type(value).__name__})"
        return DataError(f"{self.address}: column {name} is {repr(value)[:60]}{kind}: {must}")

    def text(self, name: str, *, needed: bool = False) -> str:
        """A text; nothing (null, or no such column) is the empty one, unless it is `needed`."""
        value = self.values.get(name)
        if value is None:
            value = ""
        if not isinstance(value, str):
            raise self.error(name, "must be text")
        if needed and not value.strip():
            raise self.error(name, "must not be empty")
        return self._unicode(name, value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A text, a number, or a list of them, as texts; empty ones and nulls are left out."""
        value = self.values.get(name)
        found = value if isinstance(value, list) else [value]
        must = "must be a text, a number, or a list of these"
        if not all(item is None or isinstance(item, str) or is_number(item) for item in found):
            raise self.error(name, must)
        return tuple(self._unicode(name, str(item)) for item in found if item is not None and str(item).strip())

    def whole(self, name: str) -> int:
        """A whole number, also where a table holds it as 12.0 or "12"."""
        value = self.values.get(name)
        if isinstance(value, str) and value.isascii() and value.strip().isdigit():
            return int(value.strip()[:18])
        if not is_number(value) or value != int(value):
            raise self.error(name, "must be a whole number")
        return int(value)

    def _unicode(self, name: str, text: str) -> str:
        # JSON can hold half of a surrogate pair, which no tokenizer can read.
        try:
            text.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.error(name, f"must be Unicode; character {error.start} is half of a surrogate pair") from None
        return text


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a cell is a number: no bool, not NaN, not infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
