"""Keys that were typed away, `~builder.search.quest.density`: whether they were there."""

from collections.abc import Iterable

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


def _overlap(one: str, other: str) -> bool:
    return f"{one}.".startswith(f"{other}.") or f"{other}.".startswith(f"{one}.")
