"""What holds of the source tree: short files, no dead or unexplained keys, plug-ins where Hydra finds them."""

import ast
import re
from dataclasses import Field
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from sahub.config.choices import GROUPS, conf_dir, group_choices
from sahub.config.ranges import keys
from sahub.config.settings import Settings
from sahub.data.examples import TaskSpec

ROOT = Path(__file__).parents[2]
SOURCES = sorted(
    [*(ROOT / "sahub").rglob("*.py"), *(ROOT / "pipelines").rglob("*.py"), *(ROOT / "hydra_plugins").rglob("*.py")]
)
READERS = [file for file in SOURCES if file.name not in {"settings.py", "group_schemas.py"}]


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_a_file_is_short_and_says_what_it_is(file: Path) -> None:
    text = file.read_text(encoding="utf-8")
    assert len(text.splitlines()) <= 250
    assert not text.strip() or ast.get_docstring(ast.parse(text))


@cache
def names_read() -> set[str]:
    """Attributes, subscripts and `get` arguments of the code, and what configuration files refer to."""
    nodes = [node for file in READERS for node in ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    attributes = {node.attr for node in nodes if isinstance(node, ast.Attribute)}
    subscripts = [node.slice for node in nodes if isinstance(node, ast.Subscript)]
    calls = [node for node in nodes if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)]
    gets = [argument for node in calls if node.func.attr == "get" for argument in node.args[:1]]  # type: ignore[attr-defined]
    words = {node.value for node in [*subscripts, *gets] if isinstance(node, ast.Constant)}
    files = "".join(file.read_text(encoding="utf-8") for file in conf_dir().rglob("*.yaml"))
    referred = {path.rpartition(".")[2] for path in re.findall(r"\$\{([\w.]+)\}", files)}
    task = set(TaskSpec.__dataclass_fields__)  # filled field by field from settings.task
    return attributes | words | referred | task


@pytest.mark.parametrize(("key", "field"), list(keys(Settings)), ids=[key for key, _ in keys(Settings)])
def test_every_key_is_explained_and_read(key: str, field: Field[Any]) -> None:
    assert field.metadata["help"]
    assert key.rpartition(".")[2] in names_read()


def test_every_group_has_files_that_say_what_they_are() -> None:
    for group in GROUPS:
        files = sorted((conf_dir() / group).rglob("*.yaml"))
        assert files
        for file in files:
            text = file.read_text(encoding="utf-8")
            assert text.startswith(("#", "description:")), file
            named = {"model", "compute", "sampler", "scheduler", "tracker"}
            assert "name:" not in text or group in named, f"{file}: the file's stem is its name"


def test_hydra_finds_the_plugins() -> None:
    from hydra.core.plugins import Plugins
    from hydra.plugins.launcher import Launcher
    from hydra.plugins.sweeper import Sweeper

    assert "MatrixLauncher" in {found.__name__ for found in Plugins.instance().discover(Launcher)}
    assert "MatrixSweeper" in {found.__name__ for found in Plugins.instance().discover(Sweeper)}
    assert not (ROOT / "hydra_plugins" / "__init__.py").exists()


def test_the_leaderboard_has_every_builder_at_five_budgets() -> None:
    swept = OmegaConf.load(conf_dir() / "experiment" / "leaderboard.yaml").hydra.sweeper.params
    choices = {group: swept[group].split(",") for group in ("task", "builder", "objective")}
    for group, names in choices.items():
        assert {*names} <= {*group_choices(group, [conf_dir()])}
    assert {*choices["builder"]} == {*group_choices("builder", [conf_dir()])} - {"dense", "compose"}
    assert choices["objective"] == [f"sparsity_{share}" for share in (2, 5, 10, 20, 50)]
