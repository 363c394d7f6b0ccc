"""What was typed of something that must be there: keys typed away, `~builder.search.quest.density`, and stages."""

from collections.abc import Iterable, Sequence

from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf

from sahub.errors import ConfigError, did_you_mean


def check_deleted(root: DictConfig, deleted: Iterable[str], typed: Iterable[str]) -> None:
    """Raise ConfigError for a deleted key that is neither in `root`, what the choices compose to, nor typed."""
    for key in deleted:
        parent, _, last = key.rpartition(".")
        above = OmegaConf.select(root, parent) if parent else root
        known = [str(name) for name in above] if OmegaConf.is_dict(above) else []
        if last not in known and not any(_overlap(key, one) for one in typed):
            raise ConfigError(f"~{key}: is not there{did_you_mean(last, known)}")


def check_stages(root: DictConfig, stages: Iterable[str], typed: Sequence[Override], builder: str) -> None:
    """Raise ConfigError for a stage that is not in `root`, what the choices compose to, and that no `+` adds."""
    known = [str(name) for name in root.builder.stages]
    for stage in stages:
        address = f"builder.stages.{stage}"
        lines = [one for one in typed if "." in one.key_or_group and _overlap(one.key_or_group, address)]
        if stage in known or not lines or any(one.is_add() or one.is_force_add() for one in lines):
            continue
        line = lines[0].input_line
        raise ConfigError(
            f"{line}: builder={builder} has no stage {stage}; its stages: {', '.join(known)}; +{line} adds one"
        )


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
