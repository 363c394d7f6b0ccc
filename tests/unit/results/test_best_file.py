"""A best file, whoever wrote it, sets a configuration and nothing else: every key of the schema is tried in one."""

import json
from contextlib import suppress
from pathlib import Path

import pytest
from commands import many
from hypothesis import given, settings
from hypothesis import strategies as st
from inputs import VALUES

from sahub.cli.sweep import winner_overrides
from sahub.config.choices import GROUPS
from sahub.config.grammar import written
from sahub.config.ranges import keys
from sahub.config.settings import Settings
from sahub.errors import ConfigError
from sahub.files.names import LONGEST, file_name
from sahub.results import best_file

EVERY = [key for key, _ in keys(Settings)]
# What it may set; a new key of the schema has to be put on one side or the other.
REFUSED = {
    "model.device_map", "model.trust_remote_code", "objective.function", "phases", "show", "save", "configs",
    "results_dir", "cache_dir", "force", "dry_run",
    *(key for key in EVERY if key.startswith(("tracker.", "doctor.", "bench."))),
    *(key for key in EVERY if key.startswith("compute.") and key != "compute.threads"),
}  # fmt: skip


def best(folder: Path, *overrides: str, **more: object) -> Path:
    file = folder / "won" / "optimal_configs" / "best.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps({"overrides": list(overrides), **more}), encoding="utf-8")
    return file


@pytest.mark.parametrize("sign", ["", "+", "++", "~"])
def test_every_key_of_the_schema_is_allowed_or_refused_by_name(sign: str, tmp_path: Path) -> None:
    for key in EVERY:
        override = f"{sign}{key}" if sign == "~" else f"{sign}{key}=1"
        file = best(tmp_path, override)
        if key in REFUSED:
            with pytest.raises(ConfigError) as caught:
                winner_overrides(file)
            assert str(caught.value).startswith(f"{file}: {override}: ")
        else:
            assert winner_overrides(file) == [override]


@pytest.mark.parametrize(
    "override",
    [
        "hydra.run.dir=x", "hydra/launcher=basic", "+experiment=debug", "tracker=wandb", "model@builder=embedded",
        "builder=../../x", "builder=/tmp/x", "task=ruler/../../x", "builder=[quest,dense]", "~builder", "model={a: b}",
        "search={seed: 3}", "search.seed=1,2", "search.seed=range(3)", "not an override", "=", "",
        "builder.limits.check={_target_: os.system}", "++builder.limits.check._target_=os.system",
        "builder.limits={check: {_target_: a.b}}", "task.options._target_=a.b", "~objective.function",
        "builder.description=${new_folder:x}", "task.split='${oc.env:HOME}'", "builder.limits=${oc.decode:'{a: b}'}",
        "builder.limits={a: [{b: '${oc.env:HOME}'}]}", "task.split=\"${a.${b}}\"", "builder=${oc.env:HOME}",
    ],
)  # fmt: skip
def test_what_lets_somebody_in_is_refused(override: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"best\.json: "):
        winner_overrides(best(tmp_path, "builder=quest", override))


def test_the_list_of_groups_is_complete() -> None:
    assert {*GROUPS} - {*best_file.CHOICES} == {"tracker", "experiment"}


def test_what_only_a_person_may_say_is_asked_for(tmp_path: Path) -> None:
    found = ["builder=quest", "model.trust_remote_code=true", "cache_dir=/x", "compute.workers=3", "compute=inline"]
    assert best_file.allowed(found) == ["builder=quest", "compute=inline"]
    lacking = best_file.to_type(found)
    assert lacking == ["model.trust_remote_code=true"]
    file = best(tmp_path, *best_file.allowed(found), to_type=lacking)
    with pytest.raises(ConfigError, match=r"was found with model\.trust_remote_code=true, which a file must not set"):
        winner_overrides(file)
    assert winner_overrides(file, ["model.trust_remote_code"]) == ["builder=quest", "compute=inline"]


def outside(root: Path, folder: Path) -> set[Path]:
    """All files and folders but those of the cache and of a folder."""
    return {file for file in root.rglob("*") if not {folder, root / "cache"} & {file, *file.parents}}


NASTY = ("model.name", "task.path", "task.split", "task.config", "builder.description")


def test_files_of_strangers_write_nothing_outside_and_run_nothing(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    model = folder / "model"
    model.mkdir(parents=True)
    ran = tmp_path / "ran"
    (model / "modeling_evil.py").write_text(f"open({str(ran)!r}, 'w').close()\n")
    auto = {"AutoConfig": "modeling_evil.C", "AutoModelForCausalLM": "modeling_evil.M"}
    (model / "config.json").write_text(json.dumps({"model_type": "evil", "auto_map": auto}))
    attacks = [
        ["model=hf", "model.path=./model", "model.trust_remote_code=true"],
        ["model=hf", "model.path=./model"],
        [f"cache_dir={tmp_path / 'cache of theirs'}"],
        [f"{key}=../../../escaped" for key in NASTY],
        [f"{key}={written(str(tmp_path / 'absolute'))}" for key in NASTY],
    ]
    for number, overrides in enumerate(attacks):
        best(folder / str(number), *overrides)
    before = outside(tmp_path, folder)
    lines = [[f"configs={number}/won", "dry_run=true"] for number in range(len(attacks))]
    endings, _ = many("validate", lines, folder)
    assert "0/won/optimal_configs/best.json: model.trust_remote_code=true: a best file must not" in endings[0][1]
    assert endings[2][0] == 1
    assert all("Traceback" not in said and len(said.splitlines()) <= 8 for _, said in endings)
    assert not ran.exists()
    assert outside(tmp_path, folder) == before
    assert {file.name for file in folder.iterdir()} <= {"model", "multirun", *map(str, range(len(attacks)))}
    assert all(file.parent.name == "multirun" for file in (folder / "multirun").iterdir())


@given(st.text(max_size=400))
def test_any_text_is_the_name_of_one_file(text: str) -> None:
    name = file_name(text)
    assert name not in {"", ".", ".."}
    assert not {"/", "\0"} & {*name}
    assert len(name.encode()) <= LONGEST
    if len(text.encode("utf-8", "replace")) > LONGEST:
        assert file_name(text + "x") != name


def test_names_that_were_fine_stay_as_they_are() -> None:
    assert file_name("embedded_ruler/vt_quest_sparsity_10") == "embedded_ruler_vt_quest_sparsity_10"
    assert file_name("..") == "_."
    assert file_name("../../x") == "_._.._x"


@settings(max_examples=150, deadline=None)
@given(VALUES)
def test_whatever_stands_for_the_overrides_is_refused_or_a_list_of_texts(value: object) -> None:
    for content in (value, {"overrides": value}, {"overrides": [value]}, {"overrides": [], "to_type": value}):
        with suppress(ConfigError):
            assert not any(map(best_file.refusal, best_file.check("x.json", content)))
