"""Winners in the cache: what they are found by, what a look-up falls back to, and builders made of them."""

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest

from sahub import best_config, build_stack
from sahub.config.cell import Cell, compose_cell
from sahub.errors import ConfigError
from sahub.results import winners
from sahub.results.lookup import look_up, save, show

CHOSEN = ("builder.stages.quest.page_size=8", "builder.stages.quest.label_bits=2")


def cell_of(*overrides: str) -> Cell:
    return compose_cell(list(overrides), command="best")


def best_of(cell: Cell, chosen: tuple[str, ...] = CHOSEN, **changes: object) -> dict:
    """A best file with what look-ups read."""
    figures = {"value": 0.25, "feasible": True, "density": 0.09, "aux_bits": 16.0, "answer_kl": 0.2}
    return {
        "model": cell.choices.model,
        "task": cell.choices.task,
        "builder": cell.choices.builder,
        "objective": cell.choices.objective,
        "stage_overrides": list(chosen),
        "overrides": ["builder=quest", "search.seed=5", *chosen],
        "to_type": [],
        "figures": figures,
        "mean_figures": {**figures, "value": 0.5},
        "tasks": ["ruler/vt", "ruler/cwe"],
        "n": 10,
        "trials": {"complete": 40, "rejected": 2, "failed": 0},
        "versions": {"sahub": "0.1.0", "torch": "2", "optuna": "5"},
        "seed": 0,
        **changes,
    }


def test_a_look_up_falls_back_from_the_task_to_all_tasks_to_the_default():
    found = best_config(task="ruler/vt")
    assert (found.source, found.winner, found.validation, dict(found.figures)) == ("default", None, None, {})
    assert "builder.stages.quest.page_size=16" in found.stage_overrides
    assert found.stages["quest"]["page_size"] == 16
    cell = cell_of("task=ruler/vt")
    winners.keep(cell, best_of(cell, ("builder.stages.quest.page_size=32",)), everywhere=True)
    found = best_config(task="ruler/cwe")
    assert (found.source, found.figures["value"], found.stages["quest"]["page_size"]) == ("global", 0.5, 32)
    assert "task=ruler/cwe" in found.commands["search"]
    assert "builder.stages.quest.page_size=32" in found.commands["validate"]
    winners.keep(cell, best_of(cell))
    found = best_config(task="ruler/vt")
    assert (found.source, found.figures["value"], found.stages["quest"]["page_size"]) == ("task", 0.25, 8)
    assert found.commands["search"] == "python -m pipelines.search builder=quest search.seed=5 " + " ".join(CHOSEN)
    assert best_config(task="ruler/cwe").source == "global"
    stack = build_stack(found.stages, density=found.density)
    assert (stack.density, stack.stages[-1].page_size, stack.stages[-1].label_bits) == (0.1, 8, 2)


@pytest.mark.parametrize(
    "other",
    [
        "builder=streaming_llm",
        "objective=sparsity_5",
        "objective.measure=attention_error",
        "protocol.question=dense",
        "task.options.num_examples=7",
        "builder.stages.quest.page_size=64",
        "model.dtype=bfloat16",
    ],
)
def test_a_winner_is_one_of_its_task_builder_objective_and_protocol(other: str):
    cell = cell_of()
    winners.keep(cell, best_of(cell))
    assert look_up(cell_of()).source == "task"
    assert look_up(cell_of("search.num_samples=3", "compute=inline")).source == "task"
    assert look_up(cell_of(other)).source == "default"


def test_weights_are_known_by_their_files_and_without_them_by_their_name(tmp_path: Path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    (model / "model.safetensors").write_bytes(b"weights")
    asked = ["model=hf", f"model.path={model}"]
    cell = cell_of(*asked)
    winners.keep(cell, best_of(cell))
    assert look_up(cell_of(*asked)).source == "task"
    moved = model.rename(tmp_path / "moved")
    assert look_up(cell_of("model=hf", f"model.path={moved}")).source == "task"
    (moved / "model.safetensors").write_bytes(b"other weights")
    assert look_up(cell_of("model=hf", f"model.path={moved}")).source == "default"
    away = cell_of("model=hf", "model.path=org/not-here")
    winners.keep(away, best_of(away))
    assert look_up(cell_of("model=hf", "model.path=org/not-here")).source == "task"
    assert look_up(cell_of("model=hf", "model.path=org/not-here", "model.revision=v2")).source == "default"


def test_a_later_search_replaces_an_earlier_one_and_validation_is_added_to_its_own_winner():
    cell = cell_of()
    winners.keep(cell, best_of(cell))
    winners.validated(cell, ("builder.stages.quest.page_size=4",), {"n": 1})
    assert look_up(cell).validation is None
    figures = {"n": 40, "dense_score": {"mean": 1.0}, "sparse_score": {"mean": 0.9}}
    winners.validated(cell, CHOSEN, figures)
    assert look_up(cell).validation == figures
    winners.keep(cell, best_of(cell, ("builder.stages.quest.page_size=4",)))
    found = look_up(cell)
    assert found.stage_overrides == ("builder.stages.quest.page_size=4",)
    assert found.validation is None
    assert len(list(winners.every(None))) == 1


def test_another_cache_is_another_place(tmp_path: Path):
    cell = cell_of(f"cache_dir={tmp_path / 'mine'}")
    winners.keep(cell, best_of(cell))
    assert best_config(cache_dir=tmp_path / "mine").source == "task"
    assert best_config().source == "default"


def test_what_numbers_of_another_version_found_is_shown_and_marked(monkeypatch, capsys):
    cell = cell_of()
    winners.keep(cell, best_of(cell))
    monkeypatch.setattr(winners, "numbers_version", lambda: "another")
    assert look_up(cell).winner.stale
    show([cell])
    assert "stale       found by another version" in capsys.readouterr().out
    show([cell_of("show=all")])
    assert "stale" in capsys.readouterr().out


def test_damaged_entries_are_named_and_left_out(caplog):
    cell = cell_of()
    winners.keep(cell, best_of(cell))
    [file] = winners.folder_of(None).glob("*.json")
    (file.parent / "torn.json").write_text(file.read_text()[:100])
    (file.parent / "new.json").write_text(json.dumps({"format": 99}))
    with caplog.at_level(logging.WARNING):
        assert len(list(winners.every(None))) == 1
        assert look_up(cell).source == "task"
    assert "torn.json: a damaged entry" in caplog.text
    assert "new.json: written by a newer sahub (format 99)" in caplog.text


def test_a_cache_that_cannot_be_written_loses_no_search(tmp_path: Path, caplog):
    (tmp_path / "file").write_text("")
    cell = cell_of()
    cell = replace(cell, settings=replace(cell.settings, cache_dir=str(tmp_path / "file")))
    winners.keep(cell, best_of(cell))
    assert "the winner cannot be kept there" in caplog.text


def test_all_winners_are_listed_or_those_of_what_was_typed(capsys):
    for builder in ("quest", "streaming_llm"):
        for task in ("ruler/vt", "ruler/cwe"):
            cell = cell_of(f"builder={builder}", f"task={task}")
            winners.keep(cell, best_of(cell))
    everywhere = cell_of("builder=quest")
    winners.keep(everywhere, best_of(everywhere), everywhere=True)

    def listed(*typed: str) -> list[list[str]]:
        show([cell_of("show=all", *typed)])
        return [line.split()[1:3] for line in capsys.readouterr().out.splitlines() if line.startswith(" embedded")]

    assert len(listed()) == 5
    assert listed("task=ruler/vt") == [["all", "tasks"], ["ruler/vt", "quest"], ["ruler/vt", "streaming_llm"]]
    assert listed("builder=streaming_llm", "task=ruler/cwe") == [["ruler/cwe", "streaming_llm"]]
    with pytest.raises(ConfigError, match=r"show=all: no winner in .*best matches"):
        listed("builder=sink")


def test_a_winner_becomes_a_builder(tmp_path: Path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    cell = cell_of("objective=sparsity_20")
    with pytest.raises(ConfigError, match=r"there is no winner to save; search first: python -m pipelines.search"):
        save(cell, look_up(cell), Path("mine.yaml"))
    winners.keep(cell, best_of(cell))
    said = save(cell, look_up(cell), Path("own/mine.yaml"))
    file = tmp_path / "own" / "builder" / "mine.yaml"
    assert "own/builder/mine.yaml" in said
    assert "--config-dir own builder=mine" in said
    assert "objective=sparsity_20" in said
    from sahub.config.cell import composed

    cfg, _ = composed(["builder=mine", "objective=sparsity_20"], config_dir=str(tmp_path / "own"))
    assert dict(cfg.builder.stages) == look_up(cell).stages
    assert list(cfg.builder.stages) == list(look_up(cell).stages)
    assert cfg.builder.limits == cell.builder["limits"]
    assert not cfg.builder.search
    for path, message in (
        ("own/builder/mine.yaml", "exists; give another name"),
        ("own/quest.yaml", "none of sahub's own builders"),
        ("own/mine.json", "must be NAME.yaml"),
    ):
        with pytest.raises(ConfigError, match=message):
            save(cell, look_up(cell), Path(path))
    assert file.read_text().startswith("# Found by sahub on 20")
    assert str(save(cell, look_up(cell), Path("flat.yaml"))).startswith("saved: builder/flat.yaml")


def test_what_is_the_look_ups_own_is_not_in_the_lines_to_paste():
    cell = cell_of("task=ruler/vt", "save=mine/builder/own.yaml", "show=best", "tracker=none")
    winners.keep(cell, best_of(cell))
    for line in look_up(cell).commands.values():
        assert "save=" not in line
        assert "show=" not in line


def test_what_there_is_not_is_named():
    with pytest.raises(ConfigError, match=r"builder=qest: no such builder; must be one of .*dense, "):
        best_config(builder="qest")
    with pytest.raises(ConfigError, match="must be one winner; leave out show"):
        show([cell_of("show=all", "save=a.yaml")])
    with pytest.raises(ConfigError, match="must be one winner; leave out -m"):
        show([cell_of("save=a.yaml")] * 2)


def test_a_winner_of_a_shared_cache_sets_stages_alone(caplog):
    cell = cell_of()
    for chosen in (["builder.stages.quest.page_size=${new_folder:x}"], ["model.name=x"], ["builder.limits.aux_bits=1"]):
        winners.keep(cell, best_of(cell, tuple(chosen)))
        assert look_up(cell).source == "default"
    for change in ({"n": "many"}, {"figures": {}}, {"stage_overrides": "x"}, {"versions": [1]}, {"overrides": [1]}):
        winners.keep(cell, best_of(cell) | change)
        assert look_up(cell).source == "default"
    assert caplog.text.count("a damaged entry") == 8 * 1
    winners.keep(cell, best_of(cell))
    assert look_up(cell).source == "task"
