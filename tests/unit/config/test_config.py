"""Settings, cells, overrides, names and what is said when a configuration cannot be."""

import dataclasses
import json
import logging
import shlex
from pathlib import Path

import pytest
from omegaconf import open_dict

from sahub.cli.preflight import check_plugins
from sahub.cli.sweep import directory_names, winner_files, winner_overrides
from sahub.config.cell import builder_of, compose_cell, composed
from sahub.config.choices import conf_dir, group_choices
from sahub.config.explain import composing
from sahub.config.grammar import parsed
from sahub.config.schema import new_folder
from sahub.config.settings import Settings
from sahub.errors import ConfigError, did_you_mean
from sahub.results.reproduce import reproducing


def test_the_shortest_command_plans_quest_at_ten_percent_on_the_embedded_model() -> None:
    cell = compose_cell([])
    assert cell.name == "embedded_ruler_niah_multikey_2_quest_sparsity_10"
    assert cell.choices.task == "ruler/niah_multikey_2"
    assert cell.settings.objective.density == 0.1
    assert cell.settings.phases == ("search", "validate")
    assert cell.pins == ()


def test_settings_are_frozen_all_the_way_down() -> None:
    settings = compose_cell([]).settings
    with pytest.raises(dataclasses.FrozenInstanceError):
        settings.search.num_samples = 3  # type: ignore[misc]
    assert isinstance(settings.protocol.dense_layers, tuple)


def test_interpolations_of_the_builder_follow_the_objective() -> None:
    cell = compose_cell(["objective.density=0.07"])
    assert cell.builder["stages"]["quest"]["density"] == 0.07
    assert cell.choices.objective == "sparsity_7"


def test_an_objective_without_target_searches_the_budget_and_others_do_not() -> None:
    free = compose_cell(["objective=default"])
    assert free.builder["search"]["quest"]["density"] == {"low": 0.02, "high": 0.5, "log": True}
    assert free.builder["stages"]["quest"]["density"] == 0.1
    assert "density" not in compose_cell(["objective=sparsity_5"]).builder["search"]["quest"]


@pytest.mark.parametrize(
    "overrides",
    [
        ["builder.stages.quest.page_size=32"],
        ["builder.stages.sink.sink_size.of_budget=0.3", "builder.stages.quest.min_pages=2"],
        ["builder.stages.sink.sink_size=4", "builder.search.sink=null"],
        ["++builder.stages.quest.select={top_p: 0.9}", "builder.stages.quest.density=null"],
        ["~builder.stages.local", "~builder.search.local", "builder.limits.aux_bits=64"],
        ["builder.stages.quest.density=${objective.aux_bits}"],
    ],
)
def test_applying_builder_overrides_equals_a_full_composition(overrides: list[str]) -> None:
    typed = ["objective=sparsity_5", "objective.aux_bits=0.5"]
    assert compose_cell(typed).builder_with(overrides) == builder_of(composed([*typed, *overrides])[0])


@pytest.mark.parametrize("name", group_choices("builder", [conf_dir()]))
def test_every_builder_composes_with_and_without_a_target(name: str) -> None:
    for objective in ("default", "sparsity_10"):
        of = ["compose=[sink,local]"] if name == "compose" else []
        cell = compose_cell([f"builder={name}", f"objective={objective}", *of])
        assert cell.builder["stages"]
        assert bool(cell.builder["search"]) == (name != "dense")


def test_every_objective_benchmark_and_model_composes() -> None:
    for objective in group_choices("objective", [conf_dir()]):
        kind, _, number = objective.partition("_")
        settings = compose_cell([f"objective={objective}"]).settings.objective
        assert settings.density == (int(number) / 100 if kind == "sparsity" else None)
        assert settings.aux_bits == (int(number) if kind == "memory" else None)
    # One task of each: tests of the task files check all of them against the schema.
    for task in {name.partition("/")[0]: name for name in group_choices("task", [conf_dir()])}.values():
        settings = compose_cell([f"task={task}"]).settings.task
        assert f"{settings.benchmark}/{settings.subset}" == task
    for model in group_choices("model", [conf_dir()]):
        assert compose_cell([f"model={model}", "model.path=org/some-model"]).choices.model == "some-model"


def test_typed_stage_fields_are_pins_and_cover_what_lies_below() -> None:
    typed = ["builder.stages.sink.sink_size=4", "builder.stages.quest={page_size: 8, label_bits: 2}"]
    cell = compose_cell([*typed, "search.seed=3"])
    assert cell.pins == ("sink.sink_size", "quest.page_size", "quest.label_bits")
    assert cell.is_pinned("sink.sink_size.of_budget")
    assert cell.is_pinned("quest")
    assert not cell.is_pinned("local.window_size.of_budget")
    assert cell.overrides == (*typed, "search.seed=3")


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("search.num_samples=-1", "search.num_samples=-1: must be at least 1 (trials)"),
        ("objective.density=0", "objective.density=0: must be above 0 and at most 1 (share of valid keys)"),
        ("objective.density=1.5", "objective.density=1.5: must be above 0 and at most 1"),
        ("objective.density=null", "objective.budget=null: must be a share in (0, 1] where objective.density is null"),
        ("model.path=/nonexistent", "model.path=/nonexistent: no such folder"),
        ("model.device=gpu", "model.device=gpu: must be auto, cpu, mps, cuda or cuda:N"),
        ("objective.measure=speed", "objective.measure=speed: must be one of answer_changed"),
        ("phases=[serch]", "phases=[serch]: must be one of search, validate"),
        ("phases=[]", "phases=[]: must name search, validate or both"),
        ("protocol.dense_layers=[0,-1]", "protocol.dense_layers=[0,-1]: must be at least 0"),
        ("protocol.measure_error=0", "protocol.measure_error=0: must be all, off, or N for every Nth step"),
        ("model=hf", "model.path: must be given"),
        ("+search.sampels=3", "search.sampels: no such key; did you mean num_samples?"),
        ("builder.stages.quest.density=${objective.densty}", "builder.stages.quest.density: Interpolation key"),
        (
            "builder.stages.snapkv.density=0.2",
            "builder.stages.snapkv.density=0.2: builder=quest has no stage snapkv; its stages: sink, local, quest; "
            "+builder.stages.snapkv.density=0.2 adds one",
        ),
        ("builder.stages={qest: {group: max}}", "builder.stages={qest: {group: max}}: builder=quest has no stage qest"),
    ],
)
def test_a_value_that_cannot_be_is_named_with_what_must_hold(override: str, message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_cell([override])
    assert str(caught.value).startswith(message)


@pytest.mark.parametrize(
    "override", ["objective.density=0.2", "builder.stages.quest.page_size=8,16", "builder.stage.x=1"]
)
def test_a_trial_cannot_override_anything_else(override: str) -> None:
    cell = compose_cell([])
    with pytest.raises(ConfigError, match=override.split("=")[0]):
        cell.builder_with([override])


def test_a_stage_is_added_where_a_plus_says_so_and_may_be_typed_whole() -> None:
    whole = "builder.stages.quest={density: 0.1, page_size: 8, label_bits: 4, group: max}"
    cell = compose_cell(["+builder.stages.snapkv.density=0.2", "builder.stages.snapkv.pooling=max", whole])
    assert list(cell.builder["stages"]) == ["sink", "local", "quest", "snapkv"]
    assert cell.builder["stages"]["snapkv"] == {"density": 0.2, "pooling": "max"}


def test_typed_objective_values_show_in_the_name() -> None:
    assert (
        compose_cell(["objective.measure=attention_error"]).choices.objective == "sparsity_10_measure_attention_error"
    )
    assert compose_cell(["objective.aux_bits=32"]).choices.objective == "sparsity_10_aux_bits_32"


def test_cells_of_one_name_get_directories_that_say_what_differs() -> None:
    jobs = [
        ["builder=dense", "search.seed=0"],
        ["builder=dense", "search.seed=1"],
        ["builder=sink", "search.seed=1"],
        ["builder=quest", "sampler=nsga2"],
        ["builder=quest", "sampler=random"],
    ]
    configs = []
    for job in jobs:
        cfg, hydra = composed(job)
        with open_dict(cfg):
            cfg.hydra = hydra
        configs.append(cfg)
    first, second, third, *samplers = directory_names(configs, jobs)
    assert first == "embedded_ruler_niah_multikey_2_dense_sparsity_10_search.seed=0"
    assert second.endswith("search.seed=1")
    assert third == "embedded_ruler_niah_multikey_2_sink_sparsity_10"
    quest = "embedded_ruler_niah_multikey_2_quest_sparsity_10"
    assert samplers == [f"{quest}_sampler=nsga2", f"{quest}_sampler=random"]


def test_two_runs_of_one_second_get_two_folders(tmp_path: Path) -> None:
    made = {new_folder(str(tmp_path / "outputs")) for _ in range(3)}
    assert len(made) == 3
    assert all(Path(folder).is_dir() for folder in made)


def test_winners_are_found_and_their_overrides_checked(tmp_path: Path) -> None:
    for run, page in (("2030-01-01_00-00-00", 8), ("2030-01-02_00-00-00", 16)):
        folder = tmp_path / "multirun" / run / "cell" / "optimal_configs"
        folder.mkdir(parents=True)
        (folder / "a.json").write_text(json.dumps({"overrides": [f"builder.stages.quest.page_size={page}"]}))
        (folder / "a_trials.json").write_text("[]")
    [newest] = winner_files("latest", tmp_path)
    assert winner_overrides(newest) == ["builder.stages.quest.page_size=16"]
    assert len(winner_files(str(tmp_path), tmp_path)) == 2
    newest.write_text(json.dumps({"overrides": ["hydra.job.name=x"]}))
    with pytest.raises(ConfigError, match=r"hydra\.job\.name=x: a best file must not set it"):
        winner_overrides(newest)
    with pytest.raises(ConfigError, match="configs=latest"):
        winner_files("latest", tmp_path / "cell")


def test_close_matches_look_at_the_last_part_too() -> None:
    known = ["ruler/niah_multikey_2", "loogle/shortdep_qa"]
    assert did_you_mean("niah_multikey_2", known) == "; did you mean ruler/niah_multikey_2?"
    assert did_you_mean("xyz", known) == ""


def test_the_log_of_a_cell_holds_what_is_logged_within(tmp_path: Path) -> None:
    cell = compose_cell([], directory=tmp_path)
    with cell.logged():
        logging.getLogger("sahub").warning("trial=3")
    logging.getLogger("sahub").warning("outside")
    [line] = (tmp_path / "sahub.log").read_text().splitlines()
    assert line.endswith("trial=3")


def test_defaults_of_the_schema_and_of_the_documentation_table_agree() -> None:
    search = Settings().search
    assert (search.num_samples, search.batch, search.seed, search.pin) == (50, 8, 0, True)
    assert (search.promote, search.calibrate, search.timeout_s) == (4, 4, 900)
    assert (search.max_requests, search.max_context_length, search.max_new_tokens) == (32, 8192, 20)
    assert (search.decide, Settings().scheduler.name) == (16, "race")
    assert (Settings().validate.max_context_length, Settings().validate.timeout_s) == (64000, 7200)


@pytest.mark.parametrize(
    ("override", "signs", "cure"),
    [
        ("task.path=I/step=1000 (best)/q", "= space ( )", """'task.path="I/step=1000 (best)/q"'"""),
        ("task.path=a#b", "#", """'task.path="a#b"'"""),
        ("task.path=a&b", "&", """'task.path="a&b"'"""),
        ("task.path=~/x", "~", """'task.path="~/x"'"""),
        ("task.path=d\u00e9j\u00e0", "\u00e9 \u00e0", """'task.path="d\u00e9j\u00e0"'"""),
        ("task.path='open", "'", """'task.path="'"'"'open"'"""),
    ],
)
def test_a_value_with_signs_is_told_the_signs_and_the_cure(override: str, signs: str, cure: str) -> None:
    with pytest.raises(ConfigError) as caught, composing():
        compose_cell([override])
    assert str(caught.value) == f"{override}: {signs} cannot stand in a value without quotes; type {cure}"
    [typed] = shlex.split(cure)
    assert parsed(typed).value() == override.partition("=")[2]


@pytest.mark.parametrize(
    ("text", "must"),
    [(text, "must be a mapping of keys to values") for text in ("5", "true", "1.5", "!!binary aGk=", "!!set {a}")]
    + [("&a [*a]", "refers to itself"), ("&a {b: *a}", "refers to itself")]
    + [
        (f"defaults: [default, {{{key}: x}}]", "defaults must be a list of texts, `name` or `group: name`")
        for key in ("1", "2.5", "true")
    ],
)
def test_a_file_that_holds_no_mapping_is_named(text: str, must: str, tmp_path: Path) -> None:
    file = tmp_path / "builder" / "mine.yaml"
    file.parent.mkdir()
    file.write_text(text)
    with pytest.raises(ConfigError) as caught, composing([tmp_path]):
        composed(["builder=mine"], config_dir=str(tmp_path))
    assert str(caught.value) == f"{file}: {must}"


@pytest.mark.parametrize("typed", ["{}", "a{}", "search.seed={}", "task={}", "model='{}'", "+a{}=1", "~{}"])
@pytest.mark.parametrize("breaks", ["\n" * 9, "x\r\ny\u2028z\x85\x0b\x0c\x1c\n\u2029", "\x1b[2J\ud800\n\n\n\n"])
def test_what_was_typed_is_told_on_one_line(typed: str, breaks: str) -> None:
    with pytest.raises(ConfigError) as caught, composing():
        compose_cell([typed.format(breaks)])
    assert len(str(caught.value).splitlines()) <= 3


LEAVES = (
    "builder.search.quest.density", "builder.stages.quest.page_size", "builder.search.sink",
    "task.options.num_examples",
)  # fmt: skip


@pytest.mark.parametrize("leaf", LEAVES)
def test_any_key_that_is_there_can_be_typed_away(leaf: str) -> None:
    cell = compose_cell([f"~{leaf}"])
    assert cell.pins == ()
    above = cell.settings.task.options if leaf.startswith("task") else cell.builder[leaf.split(".")[1]].get("quest", {})
    assert leaf.rpartition(".")[2] not in above
    assert compose_cell(reproducing(cell)).builder == cell.builder


def test_what_was_typed_can_be_typed_away() -> None:
    assert "new" not in compose_cell(["+builder.limits.new=1", "~builder.limits.new"]).builder["limits"]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["~builder.search.quest.densty"], "~builder.search.quest.densty: is not there; did you mean density?"),
        (["~builder.stages.nobody.x"], "~builder.stages.nobody.x: is not there"),
        (["~compose"], "~compose: cannot be typed away, only set"),
        (["~search"], "~search: cannot be typed away, only set"),
        (["~builder"], "~builder: every cell has one; choose another, builder=NAME"),
    ],
)
def test_what_is_not_there_cannot_be_typed_away(overrides: list[str], message: str) -> None:
    with pytest.raises(ConfigError) as caught:
        compose_cell(overrides)
    assert str(caught.value) == message


@pytest.mark.parametrize(
    "item",
    ["hydra/launcher=basic", "hydra/launcher=joblib", "hydra/sweeper=basic", "hydra.launcher._target_=os.system",
     "+hydra/launcher=basic", "hydra.sweeper={_target_: a.b}"],
)  # fmt: skip
def test_launchers_and_sweepers_of_others_are_refused_by_name(item: str) -> None:
    with pytest.raises(ConfigError, match="must be sahub; compute= spreads the work"):
        check_plugins(["-m", item])
    check_plugins(["hydra/launcher=sahub", "hydra.sweeper.params={}", "hydra.sweep.dir=x"])
