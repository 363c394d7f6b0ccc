"""Every file in conf/task says what its place says, and names a metric that exists."""

from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf

from sahub.examples import TaskSpec, missing
from sahub.scores import metrics_of

FOLDER = Path(__file__).parents[2] / "conf" / "task"
NAMES = sorted(file.relative_to(FOLDER).with_suffix("").as_posix() for file in FOLDER.rglob("*.yaml"))


@pytest.mark.parametrize("name", NAMES)
def test_a_task_file_is_a_task(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    with initialize_config_dir(str(FOLDER.parent), version_base=None):
        config = compose(overrides=[f"+task={name}"])
    values: Any = OmegaConf.to_container(config.task, resolve=True)
    spec = TaskSpec(**values)
    assert spec.name == name
    assert spec.metric in metrics_of(name)
    told = missing(spec)
    assert (told is None) == (spec.dataset is None)


def test_there_are_task_files() -> None:
    assert {name.split("/")[0] for name in NAMES} >= {"loogle", "ruler"}
