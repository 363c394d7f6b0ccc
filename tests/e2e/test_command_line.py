"""The command line in a process of its own: what it says, how it ends, and what it does not import."""

import json
import subprocess
import time
from pathlib import Path

import pytest
from commands import ROOT, many, python, sahub

from sahub.cli.help import help_text
from sahub.config.choices import GROUPS, conf_dir, group_choices
from sahub.config.ranges import keys
from sahub.config.settings import Settings


def run(*arguments: str, command: str = "search", folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return sahub(command, *arguments, cwd=folder)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory without configuration files, for all commands of this module."""
    return tmp_path_factory.mktemp("work")


WRONG = [
    (
        ["task=ruler/niah_multikey2"],
        ["task=ruler/niah_multikey2", "did you mean ruler/niah_multikey_2?", "ruler/niah_single_1"],
    ),
    (["builder=questt"], ["builder=questt", "did you mean quest?", "oracle_topk", "streaming_llm"]),
    (["tsk=1"], ["tsk=1", "no such key; did you mean task?", "keys: bench, builder"]),
    (["search.numsamples=3"], ["did you mean search.num_samples?", "search.max_requests"]),
    (["search.num_samples=-1"], ["search.num_samples=-1", "at least 1"]),
    (["search.num_samples=many"], ["search.num_samples=many", "a whole number, at least 1"]),
    (["objective.density=0"], ["objective.density=0", "above 0 and at most 1"]),
    (["model.path=/nonexistent"], ["model.path=/nonexistent", "no such folder", "Hub name"]),
    (["-m", "task=glob(rulr/*)"], ["task=glob(rulr/*)", "did you mean ruler?", "ruler/niah_single_1"]),
    (["-m", "search.seed=range(0)"], ["search.seed=range(0): has no values"]),
    (["-m", "search.seed=range(1,2,0)"], ["search.seed=range(1,2,0): range() arg 3"]),
    (["-m", "search.seed=interval(0,1)"], ["search.seed=interval(0,1): holds no list of values"]),
    (["task=glob(ruler/*)"], ["task=glob(ruler/*)", "needs -m"]),
    (
        ["task=ruler/niah_single_2", "task.options.essay=/nonexistent.txt"],
        ["task.options.essay=/nonexistent.txt: no such file; give the path of a text in UTF-8"],
    ),
    (["task=ruler/vt", "task.options.num_hops=0"], ["task.options.num_hops=0: must be a whole number from 1"]),
    (["builder=quest,dense"], ["builder=quest,dense", "needs -m"]),
    (["experiment=debug"], ["write +experiment=debug"]),
    (["quest"], ["quest: is not of the form key=value"]),
    (["--multirum"], ["--multirum: no such option; did you mean --multirun?"]),
    (["configs=latest"], ["configs=latest", "validate"]),
    (["doctor.requests=3"], ["doctor.requests=3: `sahub search` does not read it; `sahub search --help` has its keys"]),
    (["results_dir=/dev/null"], ["results_dir", "NotADirectoryError"]),
    (
        ["builder.stages.quest.pagesize=8"],
        ["builder.stages.quest.pagesize", "did you mean page_size?", "fields: density"],
    ),
    (["builder.stages.quest.page_size=0"], ["builder.stages.quest.page_size=0", "at least 1 token"]),
    (["builder.search.quest.page_size=8"], ["builder.search.quest.page_size=8", "choices"]),
    (
        ["-m", "builder=quest,streaming_llm", "validate.compare_with=[streming_llm]"],
        ["validate.compare_with=streming_llm: must be a builder of this run, one of quest, streaming_llm; did you"],
    ),
]


@pytest.fixture(scope="module")
def endings(folder: Path) -> list[tuple[int, str]]:
    """Exit status and output of every wrong command line."""
    found, _ = many("search", [arguments for arguments, _ in WRONG], folder)
    return found


@pytest.mark.parametrize("index", range(len(WRONG)), ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_a_mistake_is_named_in_few_lines_without_a_traceback(index: int, endings: list[tuple[int, str]]) -> None:
    status, output = endings[index]
    assert status == 1
    assert len(output.splitlines()) <= 8
    assert "Traceback" not in output
    for words in WRONG[index][1]:
        assert words in output


def test_a_mistake_ends_the_process_with_a_failure(folder: Path) -> None:
    done = run("task=ruler/niah_multikey2", folder=folder)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith(
        "task=ruler/niah_multikey2: no such task; did you mean ruler/niah_multikey_2?\nchoices: "
    )
    assert len(done.stderr.splitlines()) == 2


def test_an_error_of_the_run_itself_ends_without_a_traceback_too(folder: Path) -> None:
    (folder / "empty").mkdir()
    done = run("model=hf", "model.path=./empty", folder=folder)
    assert done.returncode == 1
    assert "Traceback" not in done.stdout + done.stderr
    assert "model.path=./empty" in done.stderr


def test_a_winner_file_that_is_none_is_refused(folder: Path) -> None:
    best = folder / "run" / "optimal_configs" / "best.json"
    best.parent.mkdir(parents=True)
    best.write_text("{}")
    done = run("configs=run", command="validate", folder=folder)
    assert (done.returncode, len(done.stderr.splitlines())) == (1, 1)
    assert "is no best file" in done.stderr


def test_an_experiment_of_ones_own_may_use_globs(folder: Path) -> None:
    mine = folder / "mine" / "experiment" / "all.yaml"
    mine.parent.mkdir(parents=True)
    mine.write_text("# @package _global_\nhydra: {mode: MULTIRUN, sweeper: {params: {task: glob(*/nothing)}}}\n")
    done = run("--config-dir", "mine", "+experiment=all", folder=folder)
    assert done.returncode == 1
    assert done.stderr.startswith("task=glob(*/nothing): matches nothing\nchoices: ")
    assert "loogle/shortdep_qa" in done.stderr


def test_help_explains_keys_and_choices_quickly_and_imports_nothing_heavy(folder: Path) -> None:
    begin = time.monotonic()
    done = run("--help", folder=folder)
    assert time.monotonic() - begin < 1.5
    assert done.returncode == 0
    for words in ("search.num_samples=50", "trials; at least 1", "ruler/niah_single_1", "streaming_llm", "sparsity_50"):
        assert words in done.stdout
    code = (
        "import sys; from sahub.cli.main import run; run('search', ['--help']); sys.stderr.write(' '.join(sys.modules))"
    )
    loaded = python("-c", code, cwd=ROOT).stderr.split()
    assert "sahub" in loaded
    assert not {"torch", "ray", "transformers", "optuna", "datasets"} & set(loaded)


def test_every_key_and_choice_is_in_the_help() -> None:
    text = "".join(help_text(command, [conf_dir()]) for command in ("validate", "doctor", "bench", "best"))
    for key, _ in keys(Settings):
        assert f"  {key}=" in text or key in {"builder.stages", "builder.search", "builder.grid"}
    for group in GROUPS:
        assert all(choice in text for choice in group_choices(group, [conf_dir()]))


def test_the_console_command_is_the_same(folder: Path) -> None:
    code = "import sys; from sahub.cli.main import main; sys.argv = ['sahub', 'serch']; main()"
    done = python("-c", code, cwd=ROOT)
    assert done.returncode == 2
    assert "did you mean search?" in done.stderr


def test_a_sweep_with_nested_globs_plans_every_cell_in_a_directory_of_its_name(folder: Path) -> None:
    done = run(
        "-m",
        "task=glob(ruler/*,exclude=[ruler/niah*,ruler/qa*])",
        "builder=dense,quest",
        "dry_run=true",
        "compute=inline",
        "results_dir=swept",
        folder=folder,
    )
    assert done.returncode == 0, done.stderr
    tasks = ("vt", "cwe", "fwe")
    names = {f"embedded_ruler_{task}_{builder}_sparsity_10" for task in tasks for builder in ("dense", "quest")}
    assert {line.partition(":")[0] for line in done.stdout.splitlines()} == {*names, "6 cells", "seconds"}
    [swept] = (folder / "swept" / "multirun").iterdir()
    assert {cell.name for cell in swept.iterdir() if cell.is_dir()} == names
    assert all((swept / name / ".hydra" / "overrides.yaml").is_file() for name in names)


def test_winners_of_a_directory_are_planned_for_validation_with_what_is_typed_on_top(folder: Path) -> None:
    best = folder / "won" / "cell" / "optimal_configs" / "best.json"
    best.parent.mkdir(parents=True)
    best.write_text(
        json.dumps({"overrides": ["builder=quest", "builder.stages.quest.page_size=8", "objective=sparsity_5"]})
    )
    for configs in ("won", "won/cell/optimal_configs/best.json"):
        done = run(
            f"configs={configs}",
            "dry_run=true",
            "compute=inline",
            "task=ruler/niah_single_1",
            command="validate",
            folder=folder,
        )
        assert done.stdout.startswith("embedded_ruler_niah_single_1_quest_sparsity_5: validate, "), done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["calibrate", "tokenss=3"], "tokenss: no such key; did you mean tokens?; keys: model, text, tokens, block,"),
        (["calibrate", "tokens=many"], "tokens=many: must be a whole number, at least 1"),
        (["train_hash", "learning.learning_rate=0"], "learning.learning_rate=0: must be a number above 0"),
        (["train_hash", "model=lama"], "model=lama: no such model; did you mean llama?"),
        (["train_embedded", "phases=3"], "phases: must be a list of phases"),
        (["convert_hash_weights"], "output=..., source=...: must be given"),
        (["calibrat"], "sahub calibrat: no such command; did you mean calibrate?"),
    ],
)
def test_commands_that_make_files_name_a_mistake(arguments: list[str], said: str, folder: Path) -> None:
    done = python("-c", "from sahub.cli.main import main; main()", *arguments, cwd=folder)
    assert done.returncode == (2 if arguments == ["calibrat"] else 1)
    assert done.stderr.startswith(said)
    assert len(done.stderr.splitlines()) <= 3
    assert not list(folder.glob("*.json"))


def test_warnings_of_libraries_stand_in_the_log_alone(folder: Path) -> None:
    code = (
        "import logging, sys, warnings; logging.basicConfig(level='INFO', stream=sys.stdout)\n"
        "from sahub.cli import main\n"
        "main.plan_cells = lambda *_: warnings.warn('of a library'); main.run_cells = lambda planned: 0\n"
        "sys.exit(main.run('search', []))"
    )
    quiet = python("-c", code, cwd=folder)
    assert (quiet.returncode, quiet.stderr) == (0, "")
    assert "UserWarning: of a library" in quiet.stdout
    asked = python("-W", "always", "-c", code, cwd=folder)
    assert "UserWarning: of a library" in asked.stderr
