"""One row of a data file: its cells, read as what a task needs, or refused by file, row and column."""

import ast
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

from sahub.errors import DataError


@dataclass(frozen=True)
class Row:
    """The columns of a row that a task asked for, and where the row stands."""

    values: Mapping[str, Any]
    address: str  # file and row
    layout: Sequence[str] = ()  # of the file: those columns of a layout of the task that it has

    def __contains__(self, name: str) -> bool:
        return name in self.values

    def error(self, name: str, must: str) -> DataError:
        """What is wrong with a cell: `file: row 3: column answer is nan (float): must be text`."""
        value = self.values.get(name)
        kind = "" if value is None else f" ({type(value).__name__})"
        return DataError(f"{self.address}: column {name} is {repr(value)[:60]}{kind}: {must}")

    def place(self, name: str) -> str:
        """Where a cell stands, for messages about it."""
        return f"{self.address}: column {name}"

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
        """A text, a number, or a list of them, as texts; empty ones and nulls are left out.

        A whole number is one, also where a table has made 12.0 of it.
        """
        value = self.values.get(name)
        if isinstance(value, str) and _written_list(value) is not None:
            raise self.error(name, "is a list that was written as text: must be the list itself")
        found = value if isinstance(value, list) else [value]
        must = "must be a text, a number, or a list of these"
        if not all(item is None or isinstance(item, str) or is_number(item) for item in found):
            raise self.error(name, must)
        return tuple(self._unicode(name, _text_of(item)) for item in found if item is not None and str(item).strip())

    def written_list(self, name: str) -> list[Any]:
        """A list, also where the layout has it as the text of one; nothing, `none` and an empty text are none."""
        value = self.values.get(name)
        if value is None or (isinstance(value, str) and value.strip().lower() in ("", "none")):
            return []
        found = _written_list(value) if isinstance(value, str) else value
        if not isinstance(found, list):
            raise self.error(name, "must be a list, or the text of one")
        return found

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


def _text_of(item: str | float) -> str:
    return str(int(item)) if isinstance(item, float) and item.is_integer() else str(item)


def _written_list(text: str) -> list[Any] | None:
    """The list that a text is the writing of, in JSON or Python's words; None for any other text."""
    inner = text.strip().removeprefix("array(")
    if not inner.startswith("["):
        return None
    for read in (json.loads, ast.literal_eval):
        try:
            found = read(text.strip())
        except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
            continue
        return found if isinstance(found, list) else None
    return [text] if inner != text.strip() else None  # numpy's writing, which names its types


def is_number(value: Any) -> TypeGuard[int | float]:
    """Whether a cell is a number: no bool, not NaN, not infinite."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
