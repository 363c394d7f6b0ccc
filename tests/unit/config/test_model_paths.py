"""Where models and runs are: homes expanded, names of folders, snapshots and files."""

from pathlib import Path

import pytest

from sahub.cli.sweep import winner_files
from sahub.config.cell import compose_cell, named_after
from sahub.config.schema import new_folder
from sahub.errors import ConfigError


@pytest.fixture
def home(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_home_is_expanded(home):
    (home / "m").mkdir()
    cell = compose_cell(["model=hf", 'model.path="~/m"'])
    assert cell.choices.model == "m"
    with pytest.raises(ConfigError, match=r"model\.path=~/nothing: no such folder"):
        compose_cell(["model=hf", 'model.path="~/nothing"'])
    assert Path(new_folder("~/runs/outputs")).parent == home / "runs" / "outputs"
    with pytest.raises(ConfigError, match="no run with optimal_configs"):
        winner_files("latest", Path("~/runs").expanduser())
    best = home / "run" / "optimal_configs" / "a.json"
    best.parent.mkdir(parents=True)
    best.write_text("{}", encoding="utf-8")
    assert winner_files("~/run", Path()) == [best]


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("org/Model-1B", "Model-1B"),
        ("/data/My.Model/", "My.Model"),
        ("/hub/models--org--Model-1B/snapshots/0123abc", "Model-1B"),
        ("/hub/models--org--Model-1B/snapshots/0123abc/", "Model-1B"),
        ("/hub/models--gpt2/snapshots/0123abc", "gpt2"),
        ("/hub/models--org--M/snapshots/0123abc/M.Q4_K_M.gguf", "M.Q4_K_M"),
        ("/elsewhere/snapshots/0123abc", "0123abc"),
        ("weights.gguf", "weights"),
    ],
)
def test_a_model_is_called_after_its_repository_folder_or_file(path, name):
    assert named_after(path) == name


def test_a_folder_that_has_no_name_of_its_own_has_one(tmp_path, monkeypatch):
    (tmp_path / "here" / "below").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "here" / "below")
    assert [named_after(path) for path in (".", "./", "..", "../below")] == ["below", "below", "here", "below"]


def test_a_snapshots_cell_is_named_by_its_repository(tmp_path):
    snapshot = tmp_path / "models--org--Model-1B" / "snapshots" / "0123abc"
    snapshot.mkdir(parents=True)
    assert compose_cell(["model=hf", f"model.path={snapshot}"]).choices.model == "Model-1B"
    assert compose_cell(["model=hf", f"model.path={snapshot}", "model.name=mine"]).choices.model == "mine"


@pytest.mark.parametrize("day", ["2024-7-1", "2024-02-30", "tomorrow", "20240726"])
def test_a_date_is_a_day(day):
    with pytest.raises(ConfigError, match=rf"protocol\.date={day}: must be a day, YYYY-MM-DD"):
        compose_cell([f"protocol.date='{day}'"])
    assert compose_cell(["protocol.date=2024-02-29"]).settings.protocol.date == "2024-02-29"
