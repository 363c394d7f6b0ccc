"""From a composed configuration to a `Cell`: typed settings, the builder's subtree, and what was typed."""

import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf, open_dict, read_write

from sahub.config.arguments import replacing
from sahub.config.builder_tree import builder_of, check_compose, check_space, resolved
from sahub.config.choices import CELL_GROUPS, GROUPS, conf_dir
from sahub.config.grammar import written
from sahub.config.group_schemas import OF_TASK
from sahub.config.overrides import apply, parse, typed_overrides
from sahub.config.ranges import typed
from sahub.config.schema import opened
from sahub.config.settings import Settings
from sahub.config.there import check_deleted, check_stages
from sahub.errors import ConfigError
from sahub.files.names import file_name


@dataclass(frozen=True, kw_only=True)
class Choices:
    """The four choices of a cell as results write them: `ruler/vt`, `sparsity_10`."""

    model: str
    task: str
    builder: str
    objective: str

    @property
    def name(self) -> str:
        """The choices as a file name."""
        return file_name("_".join((self.model, self.task, self.builder, self.objective)))


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One model x task x builder x objective.

    groups     the file chosen in each configuration group, such as `objective: sparsity_10`
    overrides  what the person typed, in order
    pins       the stage fields among it, such as `quest.page_size` or `sink.sink_size.of_budget`
    builder    stages, search and limits as plain values, every interpolation resolved
    directory  where the cell's files go
    """

    settings: Settings
    choices: Choices
    groups: dict[str, str]
    overrides: tuple[str, ...]
    pins: tuple[str, ...]
    directory: Path
    builder: dict[str, Any]
    composed: dict[str, Any] = field(repr=False)  # the whole configuration, interpolations unresolved
    config_dir: str | None = None  # of the person's own, as typed after --config-dir

    @property
    def name(self) -> str:
        """`{model}_{task}_{builder}_{objective}`."""
        return self.choices.name

    @contextmanager
    def logged(self) -> Iterator[None]:
        """Within this, log records go to the cell's own log file too."""
        file = self.directory / "sahub.log"
        handlers = [item for item in logging.getLogger().handlers if isinstance(item, logging.FileHandler)]
        if str(file.absolute()) in {item.baseFilename for item in handlers}:
            yield  # a single run: its log is the cell's
            return
        self.directory.mkdir(parents=True, exist_ok=True)
        handler = logging.FileHandler(file, encoding="utf-8", delay=True)
        handler.setFormatter(handlers[0].formatter if handlers else None)
        logging.getLogger().addHandler(handler)
        try:
            yield
        finally:
            logging.getLogger().removeHandler(handler)
            handler.close()

    def is_pinned(self, leaf: str) -> bool:
        """Whether the stage field `leaf`, such as `sink.sink_size.of_budget`, was typed, in whole or in part."""
        return any(f"{leaf}.".startswith(f"{pin}.") or pin.startswith(f"{leaf}.") for pin in self.pins)

    def builder_with(self, overrides: Sequence[str]) -> dict[str, Any]:
        """The builder's subtree as a full composition with these further `builder.*` overrides would give it.

        Raises ConfigError for an override of anything else, for a sweep, and for a key that cannot be.
        """
        root = OmegaConf.create(self.composed)
        OmegaConf.set_struct(root, True)
        opened(root)
        for override in parse(overrides):
            if not override.key_or_group.startswith("builder."):
                raise ConfigError(f"{override.input_line}: must be an override of builder.*")
            apply(root, override)
        return builder_of(root)


def settings_of(cfg: DictConfig) -> Settings:
    """The typed settings of a composed configuration; ConfigError for the first value that cannot be."""
    settings = cast(Settings, typed(Settings, {str(name): resolved(cfg, str(name)) for name in cfg}))
    if not settings.phases:
        raise ConfigError("phases=[]: must name search, validate or both")
    if settings.objective.budget is None:
        raise ConfigError("objective.budget=null: must be a share in (0, 1] where objective.density is null")
    if unknown := [name for name in settings.task.protocol if name not in OF_TASK]:
        raise ConfigError(f"task.protocol.{unknown[0]}: a task sets {', '.join(OF_TASK)}; set protocol.{unknown[0]}")
    check_day(settings.protocol.date)
    path = settings.model.path or ""
    here = path.startswith((".", "/", "~")) or path.count("/") > 1 or path.endswith(".gguf")
    if here and not path.startswith("package:") and not Path(path).expanduser().exists():
        raise ConfigError(
            f"model.path={path}: no such folder (must be a folder, a GGUF file, or a Hub name such as org/name)"
        )
    return settings


def choices_of(cfg: DictConfig, groups: Mapping[str, str], overrides: Sequence[Override]) -> Choices:
    """The cell's choices; what was typed over a group's file shows in its name, so that names stay true."""
    if made := OmegaConf.select(cfg, "compose"):
        groups = {**groups, "builder": "_".join([groups["builder"], *made])}
    changed = {override.key_or_group: override.value() for override in overrides if not override.is_delete()}
    model, path = OmegaConf.select(cfg, "model.name"), OmegaConf.select(cfg, "model.path")  # a missing path is None
    if path and (model is None or ("model.path" in changed and "model.name" not in changed)):
        model = named_after(str(path))
    parts = [str(groups["objective"])]
    for key, value in changed.items():
        if key == "objective.density" and parts[0].startswith("sparsity_") and isinstance(value, int | float):
            parts[0] = f"sparsity_{100 * value:g}"
        elif key.startswith("objective."):
            parts.append(f"{key.removeprefix('objective.')}_{value}")
    objective = re.sub(r"[^\w.-]+", "_", "_".join(parts))
    length = changed.get("task.length")
    task = groups["task"] if length is None else f"{groups['task']}_{length}"
    return Choices(model=model or groups["model"], task=task, builder=groups["builder"], objective=objective)


def check_day(text: str) -> None:
    """Raise ConfigError for a day that no calendar has."""
    try:
        date.fromisoformat(text)
    except ValueError:
        raise ConfigError(f"protocol.date={text}: must be a day, YYYY-MM-DD") from None


def named_after(path: str) -> str:
    """What a model is called that has no name: by its folder, its file, or the repository that a snapshot is of."""
    place = Path(path).expanduser()
    if place.suffix == ".gguf":
        return place.stem
    if place.name in ("", ".."):
        place = place.resolve()
    if place.parent.name == "snapshots" and place.parent.parent.name.startswith("models--"):
        return place.parent.parent.name.rpartition("--")[2]
    return place.name


def _leaves(path: str, value: Any) -> Iterator[str]:
    if isinstance(value, dict) and value:
        for name, below in value.items():
            yield from _leaves(f"{path}.{name}" if path else str(name), below)
    else:
        yield path


def plan(cfg: DictConfig, hydra: DictConfig | None = None) -> Cell:
    """The cell of a composed configuration; `hydra` is Hydra's own part of it (that of the running job when left out).

    Raises ConfigError with the key, its value and what must hold.
    """
    hydra = HydraConfig.get() if hydra is None else hydra
    typed_in, groups = typed_overrides(hydra), hydra.runtime.choices
    overrides = parse(typed_in)
    if lacking := [group for group in CELL_GROUPS if group not in groups]:
        raise ConfigError(f"~{lacking[0]}: every cell has one; choose another, {lacking[0]}=NAME")
    settings = settings_of(cfg)
    check_space(settings.space, typed_in)
    check_compose(cfg, groups["builder"])
    deleted = {override.key_or_group for override in overrides if override.is_delete()}
    pins = [
        leaf
        for override in overrides
        if override.key_or_group.startswith("builder.stages") and override.key_or_group not in deleted
        for leaf in _leaves(override.key_or_group.removeprefix("builder.stages").lstrip("."), override.value())
    ]
    return Cell(
        settings=settings,
        choices=choices_of(cfg, groups, overrides),
        groups={group: groups[group] for group in GROUPS if groups.get(group) and group != "experiment"},
        overrides=tuple(typed_in),
        pins=tuple(dict.fromkeys(pins)),
        directory=Path(hydra.runtime.output_dir),
        builder=builder_of(cfg),
        composed=cast(dict[str, Any], OmegaConf.to_container(cfg, resolve=False)),
        config_dir=next((one.path for one in hydra.runtime.config_sources if one.provider == "command-line"), None),
    )


def check_typed(cell: Cell) -> Cell:
    """The cell. Raises ConfigError where a key was typed away, or a stage was given fields, that was not there."""
    overrides = parse(cell.overrides)
    deleted = {one.key_or_group for one in overrides if one.is_delete()}
    all_typed = [] if cell.settings.compose else [name for name in cell.builder["stages"] if _all_typed(cell, name)]
    if deleted or all_typed:
        chosen = [f"{group}={written(choice)}" for group, choice in cell.groups.items()]
        root = composed(chosen, config_dir=cell.config_dir)[0]
        given = [one.key_or_group for one in overrides if one.is_add() or one.is_force_add()]
        others = [one.key_or_group for one in overrides if one.key_or_group not in deleted]
        check_deleted(root, deleted, [*given, *others])
        check_stages(root, all_typed, overrides, cell.choices.builder)
    return cell


def _all_typed(cell: Cell, stage: str) -> bool:
    """Whether nothing of a stage is from the builder's file alone: then it may not be there."""
    return all(cell.is_pinned(leaf) for leaf in _leaves(stage, cell.builder["stages"][stage]))


def composed(
    overrides: Sequence[str], command: str = "search", config_dir: str | None = None
) -> tuple[DictConfig, DictConfig]:
    """What `sahub <command> <overrides>` composes, unchecked: the configuration, and Hydra's own part of it."""
    searched = [f"hydra.searchpath=[{written(f'file://{config_dir}')}]"] if config_dir else []
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        cfg = compose(command, overrides=[*replacing(overrides), *searched], return_hydra_config=True)
    hydra = cfg.hydra
    with open_dict(cfg):
        del cfg["hydra"]
    return cfg, hydra


def compose_cell(overrides: Sequence[str], *, command: str = "search", directory: Path = Path("outputs")) -> Cell:
    """The cell that `sahub <command> <overrides>` would plan, with its files in `directory`."""
    cfg, hydra = composed(overrides, command)
    with read_write(hydra):
        hydra.runtime.output_dir = str(directory)
    return check_typed(plan(cfg, hydra))
