"""Which cells may stand in one table, and what can be said of all of them together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sahub.stats.bounded import Groups
from sahub.stats.verdict import verdicts

OF_CHOICE = ("model", "task")  # whose settings are compared between cells of the same choice alone
ABSENT = "(not set)"
Row = Mapping[str, Any]  # of the summary file


@dataclass(frozen=True, kw_only=True)
class ComparedRows:
    """Cells of one protocol, each with its `verdict` among them.

    differs  key -> this table's value, of every key in which it differs from the first table
    """

    rows: Sequence[Row]
    differs: Mapping[str, Any]

    @property
    def apart(self) -> str:
        """In what it differs, as text."""
        return ", ".join(f"{key}={value}" for key, value in self.differs.items())


def tables(rows: Sequence[Row]) -> list[ComparedRows]:
    """The rows in as few tables as their protocols allow, in their order; each with the verdicts that hold in it."""
    groups: list[list[Row]] = []
    for row in rows:
        fitting = (group for group in groups if not any(differences(row, other) for other in group))
        group = next(fitting, None)
        if group is None:
            groups.append([row])
        else:
            group.append(row)
    return [ComparedRows(rows=judged(group), differs=_differs(groups[0], group)) for group in groups]


def differences(one: Row, other: Row) -> dict[str, tuple[Any, Any]]:
    """The keys of two cells' protocols that keep them out of one table, with both values."""
    mine, theirs = one["protocol"], other["protocol"]
    apart = {section for section in OF_CHOICE if one[section] != other[section]}
    return {key: pair for key, pair in unequal(mine, theirs).items() if key.partition(".")[0] not in apart}


def unequal(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """The keys whose values differ, with both."""
    both = {key: (mine.get(key, ABSENT), theirs.get(key, ABSENT)) for key in dict.fromkeys([*mine, *theirs])}
    return {key: pair for key, pair in both.items() if pair[0] != pair[1]}


def judged(rows: Sequence[Row]) -> list[Row]:
    """The rows of a table with `verdict`: that of each cell among all of them; None for dense, and without scores."""
    asked = [row for row in rows if "paired" in (row["validation"] or {}) and row["builder"] != "dense"]
    pairs = [_groups(row["validation"]["paired"]) for row in asked]
    margins = [row["validation"]["verdict"]["margin"] for row in asked]
    seed = asked[0]["protocol"]["search.seed"] if asked else 0
    found = {id(row): one._asdict() for row, one in zip(asked, verdicts(pairs, margins, seed=seed), strict=True)}
    return [{**row, "verdict": found.get(id(row))} for row in rows]


def _groups(paired: Mapping[str, Any]) -> Groups:
    return Groups(**{name: np.array(column) for name, column in paired.items()})


def _differs(first: Sequence[Row], group: Sequence[Row]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for row in group if group is not first else ():
        for other in first:
            found |= {key: theirs for key, (theirs, _) in differences(row, other).items()}
    return found
