"""What the shell shows: commands with a line each, the help of one key, completion."""

import subprocess
import sys
from pathlib import Path

import pytest

from sahub.cli.commands import completion
from sahub.cli.one_key import asked_help
from sahub.cli.overview import overview
from sahub.config.choices import COMMANDS, FILE_COMMANDS, conf_dir
from sahub.errors import ConfigError


def test_every_command_has_a_line_and_a_module() -> None:
    lines = {line.split()[0]: line.split(maxsplit=1)[1:] for line in overview().splitlines() if line.startswith("  ")}
    assert all(lines[name] for name in (*COMMANDS, *FILE_COMMANDS))
    modules = {file.stem for file in (Path(__file__).parents[3] / "pipelines").glob("*.py")}
    assert modules - {"__init__", "__main__"} == {*COMMANDS, *FILE_COMMANDS}


@pytest.mark.parametrize(
    ("typed", "there", "not_there"),
    [
        (["--help", "search.seed"], "search.seed=0", "search.batch"),
        (["-h", "sampler"], "sampler.population_size=null", "scheduler"),
        (["model=embedded", "--help", "builder.stages.quest"], "builder.stages.quest.page_size=16", "double_sparsity"),
        (["--help", "builder.stages.quest.page_size"], "+page_size=16", "label_bits"),
        (["--help", "phases"], "phases=", "search.seed"),
        (["--help", "builder=quest"], "Examples", "no such"),
    ],
)
def test_help_of_one_key(typed: list[str], there: str, not_there: str) -> None:
    text = asked_help("search", typed, [conf_dir()])
    assert there in text
    assert not_there not in text


@pytest.mark.parametrize(
    ("key", "said"),
    [
        ("search.sed", "--help search.sed: no such key; did you mean search.seed?"),
        ("builder.stages.qest", "--help builder.stages.qest: unknown method; did you mean quest?"),
        ("builder.stages.quest.pagesize", "no such field; did you mean page_size?"),
    ],
)
def test_a_key_that_is_not_there_is_named(key: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        asked_help("search", ["--help", key], [conf_dir()])
    assert said in str(error.value)


def test_bash_completes_commands_keys_and_choices(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert completion.main([]) == 0
    name = tmp_path / "sahub"
    name.write_text(
        f"#!{sys.executable}\nimport sys\nfrom sahub.cli.main import main\nsys.argv[0] = 'sahub'\nmain()\n", "utf-8"
    )
    name.chmod(0o755)
    ask = 'COMP_LINE="$1"; COMP_POINT=${#COMP_LINE}; _sahub; echo "${COMPREPLY[@]}"'
    script = capsys.readouterr().out

    def completed(line: str) -> list[str]:
        words = ["bash", "-c", f"{script}\n{ask}", "bash", line.replace("sahub", str(name), 1)]
        return subprocess.run(words, capture_output=True, text=True, check=True, timeout=60).stdout.split()

    assert completed("sahub ") == [*COMMANDS, *FILE_COMMANDS]
    assert completed("sahub se") == ["search"]
    assert completed("sahub search model=embedded builder=que") == ["quest"]
    assert completed("sahub search builder.stages.quest.page") == ["builder.stages.quest.page_size="]
