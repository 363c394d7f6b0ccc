"""`python -m pipelines.doctor` in a process of its own: what it prints and writes, and how it ends."""

import json
from pathlib import Path

import pytest
from commands import many, sahub

WRONG = [
    (["doctor.request=3"], "doctor.request=3: no such key; did you mean doctor.requests?"),
    (["doctor.requests=0"], "doctor.requests=0: must be at least 1 (questions)"),
    (["doctor.lengths=512"], "doctor.lengths=512: must be a list such as [a,b]"),
    (
        ["search.max_requests=3"],
        "search.max_requests=3: `sahub doctor` reads it only where a task is examined; add task=",
    ),
    (["task=ruler/vt", "doctor.tasks=[]"], "doctor.tasks=[]: `sahub doctor` reads it only where no task is typed"),
    (["tracker=mlflow"], "tracker=mlflow: `sahub doctor` does not read it"),
    (["doctor.tasks=[ruler/niah_single1]"], "doctor.tasks=ruler/niah_single1: no such task; did you mean ruler/niah_s"),
    (["model=hf", "model.path=nobody/nothing"], "weights of nobody/nothing are not on this machine; fetch them: hf "),
    (["-m", "model=hf", "model.path=a/b,a/c"], "weights of a/b are not on this machine; fetch them: hf download a/b\n"),
]


def test_the_packaged_model_is_examined(tmp_path: Path) -> None:
    done = sahub(
        "doctor", "doctor.tasks=[ruler/niah_single_1]", "doctor.requests=2", "doctor.timing_tokens=64",
        cwd=tmp_path,
    )  # fmt: skip
    assert (done.returncode, done.stderr.strip()) == (0, "")
    for words in ("LlamaForCausalLM", "query heads", "receipts", "ms per token", "(n=2)"):
        assert words in done.stdout
    *_, verdict, files = done.stdout.splitlines()
    written = Path(files.removeprefix("files: "))
    assert written.parent.parent == tmp_path / "outputs"
    assert {file.name for file in written.parent.iterdir()} == {"doctor.json", ".hydra", "sahub.log"}
    assert verdict == f"verdict: {json.loads(written.read_text())['verdict']}"


@pytest.fixture(scope="module")
def endings(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[int, str]]:
    """Exit status and output of every wrong command line."""
    found, imported = many("doctor", [arguments for arguments, _ in WRONG], tmp_path_factory.mktemp("work"))
    assert not {"torch", "transformers"} & set(imported)
    return found


@pytest.mark.parametrize("index", range(len(WRONG)), ids=[" ".join(arguments) for arguments, _ in WRONG])
def test_a_mistake_is_named_in_few_lines(index: int, endings: list[tuple[int, str]]) -> None:
    status, output = endings[index]
    assert status == 1
    assert len(output.splitlines()) <= 2
    assert output.startswith(WRONG[index][1])
