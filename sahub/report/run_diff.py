"""Two runs beside each other: every key that differs, and what moved."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sahub.config.choices import CELL_GROUPS
from sahub.config.ranges import leaves, shown
from sahub.report.columns import percent, verdict_text
from sahub.report.run_files import CellFiles, RunFiles
from sahub.report.tables import ABSENT, unequal
from sahub.stats.intervals import paired_interval

Cells = list[CellFiles]
Pair = tuple[CellFiles, CellFiles]
Moved = dict[str, tuple[Any, Any]]
FIGURES = ("answer_kl", "attention_error", "density", "kv_density", "aux_bits", "bytes_per_step")


def lines(a: RunFiles, b: RunFiles) -> Iterator[str]:
    """What is printed: keys that differ in every cell, then each pair of cells, then the cells of one run alone."""
    pairs, alone = paired(_cells(a), _cells(b))
    changed = [differing(one, other) for one, other in pairs]
    everywhere = {key: pair for key, pair in (changed[0] if changed else {}).items() if _in_all(key, pair, changed)}
    yield from (f"a: {a.root}", f"b: {b.root}", "")
    yield "in every cell:" if everywhere else "no key differs in every cell"
    yield from _keys(everywhere)
    for (one, other), own in zip(pairs, changed, strict=True):
        yield from ("", _name(one, other))
        yield from _keys({key: pair for key, pair in own.items() if key not in everywhere})
        yield from (f"  {line}" for line in _moved(one, other))
    for which, cells in zip("ab", alone, strict=True):
        yield from (f"only in {which}: {_name(cell, cell)}" for cell in cells)


def paired(
    a: Sequence[CellFiles], b: Sequence[CellFiles]
) -> tuple[list[Pair], tuple[list[CellFiles], list[CellFiles]]]:
    """Cells with the same choices, in order, and those that are left; one left in each run are a pair too."""
    rest, found, alone = list(b), list[Pair](), list[CellFiles]()
    for one in a:
        other = next((cell for cell in rest if _choices(cell) == _choices(one)), None)
        if other is None:
            alone.append(one)
        else:
            rest.remove(other)
            found.append((one, other))
    if len(alone) == len(rest) == 1:
        found, alone, rest = [*found, (alone[0], rest[0])], [], []
    return found, (alone, rest)


def differing(one: CellFiles, other: CellFiles) -> Moved:
    """Every key of settings, stages and versions in which two cells differ; of the protocol, without validations."""
    mine, theirs = one.config(), other.config()
    if not mine or not theirs:
        return unequal(one.row["protocol"], other.row["protocol"])
    return unequal(_settings(mine), _settings(theirs))


def _settings(config: Mapping[str, Any]) -> dict[str, Any]:
    parts = {**config["settings"], "stages of the winner": config["stages"] or {}, "version": config["versions"]}
    return dict(leaves(parts))


def _moved(one: CellFiles, other: CellFiles) -> Iterator[str]:
    if not one.row["ok"] or not other.row["ok"]:
        failed = [f"{which}: {cell.row['message']}" for which, cell in (("a", one), ("b", other)) if not cell.row["ok"]]
        yield f"failed     {'; '.join(failed)}"
        return
    mine, theirs = one.row["validation"] or {}, other.row["validation"] or {}
    for which in ("dense", "sparse", "default"):
        before, after = mine.get(f"{which}_score"), theirs.get(f"{which}_score")
        if before and after:
            yield f"{which:<10} {percent(before)} -> {percent(after)}, {_difference(one, other, which)}"
    words = [verdict_text(cell.row["verdict"]) for cell in (one, other)]
    if {*words} != {"-"}:
        yield f"{'verdict':<10} {words[0]} -> {words[1]}"
    for name in FIGURES:
        before, after = (found.get("measures", {}).get(name) for found in (mine, theirs))
        if before is not None and after is not None and before != after:
            yield f"{name:<10} {before:.4g} -> {after:.4g}"


def _difference(one: CellFiles, other: CellFiles, which: str) -> str:
    """b minus a in points; paired where both answered questions about the same contexts."""
    before, after = one.scores(which), other.scores(which)
    same = [key for key in before if key in after]
    if not same:
        return "about other contexts"
    contexts = [key.rpartition("/")[0] for key in same]
    found = paired_interval([after[key] for key in same], [before[key] for key in same], contexts)
    of = "" if len(same) == len(before) == len(after) else f" of {len(before)} and {len(after)}"
    moved = percent(found._asdict(), sign=True)
    return f"{moved} points, paired over {len(same)} questions{of} about {len({*contexts})} contexts"


def _keys(found: Moved) -> Iterator[str]:
    width = max(map(len, found), default=0)
    yield from (f"  {key:<{width}}  {_text(a)} -> {_text(b)}" for key, (a, b) in sorted(found.items()))


def _text(value: Any) -> str:
    return ABSENT if value == ABSENT else shown(value)


def _in_all(key: str, pair: tuple[Any, Any], changed: Sequence[Moved]) -> bool:
    return all(own.get(key) == pair for own in changed)


def _cells(run: RunFiles) -> list[CellFiles]:
    return [CellFiles(run, row) for row in run.summary["cells"]]


def _choices(cell: CellFiles) -> tuple[str, ...]:
    return tuple(cell.row[name] for name in CELL_GROUPS)


def _name(one: CellFiles, other: CellFiles) -> str:
    both = zip(_choices(one), _choices(other), strict=True)
    return ", ".join(mine if mine == theirs else f"{mine} -> {theirs}" for mine, theirs in both)
