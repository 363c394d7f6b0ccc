"""The best configuration that is known: a task's cached winner, that of all tasks, or the builder's default."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from sahub.config.cell import Cell, compose_cell
from sahub.config.choices import CELL_GROUPS, address, conf_dir, group_choices
from sahub.config.explain import composing
from sahub.errors import ConfigError
from sahub.files.atomic import write_text
from sahub.results import best_file
from sahub.results.reproduce import LEFT_OUT, command_line, merged, reproducing
from sahub.results.winners import Winner, every, find, folder_of

SOURCES = {
    "task": "the winner of its search",
    "global": "no winner for this task: the winner of all tasks together",
    "default": "no winner in the cache: the builder's own values",
}


@dataclass(frozen=True, kw_only=True)
class BestConfig:
    """A configuration, where it comes from, and what is known of it.

    source           task, global or default: what the look-up had to fall back to
    stage_overrides  what the search chose, such as `builder.stages.quest.page_size=32`
    stages, density  for `build_stack(found.stages, density=found.density)`
    commands         for `search` and `validate`, the line that gives its figures again
    figures          value and measures on the contexts of the search; empty for a default
    validation       accuracies with intervals on contexts that no search has seen, where it was validated
    winner           what the cache holds of it, None for a default
    """

    source: str
    model: str
    task: str
    builder: str
    objective: str
    stage_overrides: tuple[str, ...]
    stages: Mapping[str, Any]
    density: float
    commands: Mapping[str, str]
    figures: Mapping[str, Any]
    validation: Mapping[str, Any] | None
    winner: Winner | None


def best_config(
    *,
    model: str = "embedded",
    task: str = "ruler/niah_multikey_2",
    builder: str = "quest",
    objective: str = "sparsity_10",
    overrides: Sequence[str] = (),
    cache_dir: str | Path | None = None,
) -> BestConfig:
    """What `sahub best model=... task=... builder=... objective=...` looks up in `cache_dir` (None: the usual one).

    Raises ConfigError for a builder, task, model or objective that there is not.
    """
    chosen = {"model": model, "task": task, "builder": builder, "objective": objective}
    for group, choice in chosen.items():
        if choice not in (choices := group_choices(group, [conf_dir()])):
            raise ConfigError(f"{group}={choice}: no such {group}; must be one of {', '.join(choices)}")
    with composing():
        cell = compose_cell([*(f"{group}={choice}" for group, choice in chosen.items()), *overrides])
    if cache_dir is not None:
        cell = replace(cell, settings=replace(cell.settings, cache_dir=str(cache_dir)))
    return look_up(cell)


def look_up(cell: Cell) -> BestConfig:
    """The cell's winner, that of all tasks, or its builder as it is."""
    found = find(cell)
    winner = found or find(cell, everywhere=True)
    if winner is None:
        from sahub.builders.space import overrides_of, space_of  # optuna, which other look-ups do not need

        chosen = overrides_of(space_of(cell.builder, cell.is_pinned).default)
    else:
        chosen = tuple(winner.best["stage_overrides"])
    lines = merged(reproducing(cell), chosen)
    if found is not None:  # what it was found with, and what its file must not set but the person has typed
        typed = [item for item in best_file.to_type(cell.overrides) if address(item) not in LEFT_OUT]
        lines = merged(merged(found.best["overrides"], chosen), typed)
    commands = {one: command_line(one, lines, cell.config_dir) for one in ("search", "validate")}
    return BestConfig(
        source="default" if winner is None else "task" if found else "global",
        model=cell.choices.model,
        task=cell.choices.task,
        builder=cell.choices.builder,
        objective=cell.choices.objective,
        stage_overrides=chosen,
        stages=cell.builder_with(chosen)["stages"],
        density=float(cell.settings.objective.budget),
        commands=commands,
        figures=winner.figures if winner else {},
        validation=winner.validation.get(cell.choices.task) if winner else None,
        winner=winner,
    )


def show(cells: Sequence[Cell]) -> None:
    """Print what `sahub best` was asked for: the best configuration of every cell, or all winners that match.

    Raises ConfigError where nothing matches, or where a file cannot be saved.
    """
    settings = cells[0].settings
    if settings.save and (len(cells) > 1 or settings.show == "all"):
        raise ConfigError(f"save={settings.save}: must be one winner; leave out {'-m' if len(cells) > 1 else 'show'}")
    if settings.show == "all":
        sys.stdout.write(_table(cells))
        return
    for cell in cells:
        found = look_up(cell)
        sys.stdout.write("".join(f"{line}\n" for line in _described(found, cell)))
        if settings.save:
            sys.stdout.write(save(cell, found, Path(settings.save).expanduser()))


def save(cell: Cell, found: BestConfig, path: Path) -> str:
    """Write the winner as a builder of one's own, `DIR/builder/NAME.yaml`; how to use it, as text. Raises ConfigError.

    A path without a folder `builder` gets one: that is where `--config-dir DIR` looks.
    """
    own = cell.config_dir if cell.config_dir and path.parent == Path() else None
    file = path if path.parent.name == "builder" else Path(own or path.parent) / "builder" / path.name
    if found.winner is None:
        raise ConfigError(f"save={path}: there is no winner to save; search first: {found.commands['search']}")
    if file.suffix != ".yaml" or file.stem in group_choices("builder", [conf_dir()]):
        raise ConfigError(f"save={path}: must be NAME.yaml, and NAME none of sahub's own builders")
    if file.exists():
        raise ConfigError(f"save={path}: {file} exists; give another name")
    what = f"{found.builder} for {found.model}, {'all tasks' if found.source == 'global' else found.task}"
    lines = [
        f"# Found by sahub on {found.winner.when[:10]}: {_figures(found.figures)}.",
        f"description: {_flow(f'{what}, as found under {found.objective}')}",
        "stages:",
        *(f"  {label}: {_flow(fields)}" for label, fields in found.stages.items()),
        f"limits: {_flow(cell.builder.get('limits') or {})}",
    ]
    write_text(file, "".join(f"{line}\n" for line in lines))
    chosen = [f"{group}={choice}" for group, choice in cell.groups.items() if group in {"model", "task", "objective"}]
    line = command_line("search", [f"builder={file.stem}", *chosen], str(file.parent.parent))
    return f"saved: {file}; use it with\n  {line}\n"


def _flow(value: Any) -> str:
    """The value as YAML in one line."""
    text: str = yaml.safe_dump(value, default_flow_style=True, sort_keys=False, width=10**6, allow_unicode=True)
    return text.removesuffix("...\n").strip()


def _described(found: BestConfig, cell: Cell) -> Iterator[str]:
    yield f"{found.model}, {found.task}, {found.builder}, {found.objective}: {SOURCES[found.source]}"
    for override in found.stage_overrides or ("(nothing is free)",):
        yield f"  {override}"
    if found.winner is not None:
        best = found.winner.best
        yield f"  figures     {_figures(found.figures)}; n={best['n']}"
        yield from [f"  tasks       {', '.join(best['tasks'])}"] if found.source == "global" else []
        yield f"  validated   {_validated(found.validation)}"
        counts = ", ".join(f"{count} {state}" for state, count in best["trials"].items() if count)
        made = ", ".join(f"{name} {version}" for name, version in best["versions"].items() if name in MADE_BY)
        yield f"  found       {found.winner.when}, seed {best['seed']}, {counts}; {made}"
        if found.winner.stale:
            yield "  stale       found by another version of the code that makes numbers: search again"
    else:
        yield f"  cache       {folder_of(cell.settings.cache_dir)}"
    yield from (f"  {line}" for line in found.commands.values())


MADE_BY = {"sahub", "torch", "transformers"}


def _figures(figures: Mapping[str, Any]) -> str:
    names = ("value", "density", "aux_bits", "answer_left", "answer_kl", "attention_error", "benchmark_score")
    return ", ".join(f"{name} {figures[name]:.4g}" for name in names if name in figures)


def _validated(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return "not yet"
    if "dense_score" not in figures:
        return f"n={figures['n']}, without gold answers"
    scores = {name: figures[f"{name}_score"]["mean"] for name in ("dense", "sparse")}
    dense, sparse = (f"{name} {100 * mean:.1f}" for name, mean in scores.items())
    word = figures.get("verdict", {}).get("word")
    return f"{dense}, {sparse} % of n={figures['n']}{f', {word}' if word else ''}"


COLUMNS = ("model", "task", "builder", "objective", "stages", "value", "density", "validated", "found", "")


def _table(cells: Sequence[Cell]) -> str:
    """All winners that have the choices that were typed, as a table."""
    rows: dict[tuple[str, ...], None] = {}
    for cell in cells:
        typed = {item.lstrip("+~").split("=")[0].split(".")[0] for item in cell.overrides}
        for winner in every(cell.settings.cache_dir):
            asked = {group for group in CELL_GROUPS if group in typed}
            same = {group for group in asked if winner.best[group] == getattr(cell.choices, group)}
            if asked - same <= ({"task"} if winner.everywhere else set()):
                rows[_row(winner)] = None
    if not rows:
        folder = folder_of(cells[0].settings.cache_dir)
        raise ConfigError(f"show=all: no winner in {folder} matches; searches leave them there")
    table = Table(header_style="bold", box=SIMPLE_HEAD, padding=(0, 1, 0, 0))
    for name in COLUMNS:
        table.add_column(name, justify="right" if name in {"value", "density"} else "left", no_wrap=True)
    for row in sorted(rows):
        table.add_row(*row)
    console = Console(width=1000)
    with console.capture() as text:
        console.print(table)
    return "".join(f"{line.rstrip()}\n" for line in text.get().splitlines())


def _row(winner: Winner) -> tuple[str, ...]:
    best, short = winner.best, "builder.stages."
    return (
        best["model"],
        "all tasks" if winner.everywhere else best["task"],
        best["builder"],
        best["objective"],
        " ".join(override.removeprefix(short) for override in best["stage_overrides"]),
        f"{winner.figures['value']:.4g}",
        f"{winner.figures['density']:.3f}",
        "; ".join(map(_validated, winner.validation.values())),
        winner.when[:16].replace("T", " "),
        "stale" if winner.stale else "",
    )
