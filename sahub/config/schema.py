"""The settings as a schema that Hydra composes into, and the names that configuration files use."""

from datetime import datetime
from pathlib import Path
from typing import cast

from hydra.core.config_store import ConfigStore
from omegaconf import DictConfig, OmegaConf

from sahub.config.settings import Settings

# Dictionaries that take new keys.
OPEN = (
    "builder.stages",
    "builder.search",
    "builder.grid",
    "builder.limits",
    "task.options",
    "task.where",
    "task.protocol",
    "objective.function",
)


def schema() -> DictConfig:
    """The settings as an OmegaConf schema whose values can be overridden."""
    root = cast(DictConfig, OmegaConf.structured(Settings))
    pending = [root]
    while pending:
        node = pending.pop()
        OmegaConf.set_readonly(node, None)  # frozen dataclasses make read-only nodes
        children = [node._get_node(name) for name in node]
        pending += [child for child in children if isinstance(child, DictConfig) and not child._is_none()]
    return opened(root)


def opened(root: DictConfig) -> DictConfig:
    """The root with its open dictionaries open, in place."""
    for path in OPEN:
        OmegaConf.set_struct(OmegaConf.select(root, path), False)
    return root


def new_folder(parent: str) -> str:
    """Make a folder that no other run has: `<parent>/2030-01-31_12-00-00`, with a number where that is taken."""
    stamp, attempt = datetime.now().strftime("%Y-%m-%d_%H-%M-%S"), 1
    while True:
        folder = Path(parent).expanduser() / (stamp if attempt == 1 else f"{stamp}_{attempt}")
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            attempt += 1
        else:
            return str(folder)


OmegaConf.register_new_resolver(
    "first", lambda *values: next((one for one in values if one is not None), None), replace=True
)
OmegaConf.register_new_resolver("unless", lambda given, value: value if given is None else None, replace=True)
OmegaConf.register_new_resolver(
    "eighths",
    lambda of, most: {"low": most / 8, "high": most, "log": True} if of == "kv" and most else None,
    replace=True,
)
OmegaConf.register_new_resolver("new_folder", new_folder, use_cache=True, replace=True)
ConfigStore.instance().store(name="settings", node=schema(), provider="sahub")
