"""What the documentation says holds: its code runs, its commands are commands, its links lead somewhere."""

import re
import runpy
import shlex
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest
import yaml
from commands import sahub

from sahub.cli.help import known_keys
from sahub.config.choices import COMMANDS, FILE_COMMANDS, GROUPS, address, conf_dir, group_choices

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [
    *ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "examples").glob("*.md"), ROOT / "sahub/embedded/README.md",
]  # fmt: skip
RUN = ("python.md", "tutorials/your-method.md")  # block after block, in order
ELSEWHERE = {  # files, which tests of their own write and use
    "add-a-dataset.md": "e2e/test_add_a_dataset.py",
    "method.md": "e2e/test_newcomer.py",
    "tutorials/your-data.md": "e2e/test_newcomer.py",
}
BLOCK = re.compile(r"^```([^\n]*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
FILE = re.compile(r"(?:`(mine/[\w./-]+)`:\n\n```\w+\n|^```\w+\n# (mine/\S+)\n)(.*?)^```", re.DOTALL | re.MULTILINE)
OTHERS = {".", "cd", "hf", "optuna-dashboard", "pip", "python", "uv", "eval"}  # programs that are not ours
OPEN = ("hydra.", "builder.stages.", "task.options.", "limits")  # whose keys are others' or a builder's
FETCHED = ("model=hf", "model=llama", "model=smollm2", "model=qwen", "source=files", "weights=", "channel_file=")


def blocks(*languages: str) -> Iterator[tuple[Path, str]]:
    """Fenced blocks of these languages, with their pages."""
    for page in PAGES:
        for language, text in BLOCK.findall(page.read_text(encoding="utf-8")):
            if language in languages:
                yield page, text


@cache
def commands() -> list[tuple[str, tuple[str, ...]]]:
    """Every command line of a page, in a shell block or indented, in words: (where it stands, words)."""
    found: dict[tuple[str, ...], str] = {}
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines = [
            line for language, block in BLOCK.findall(text) if language in {"bash", "sh"} for line in block.splitlines()
        ]
        lines += re.findall(
            r"^    ((?:python|sahub|make|pip|uv|hf|optuna-dashboard) .*)$", BLOCK.sub("", text), re.MULTILINE
        )
        for line in lines:
            for one in re.split(r"&&", line):
                words = tuple(shlex.split(one, comments=True))
                found.setdefault(tuple("DIR" if word == "..." else word for word in words), f"{page.name}: {line}")
    return [(where, words) for words, where in found.items() if words]


def own(words: tuple[str, ...]) -> tuple[str, list[str]] | None:
    """The command of sahub and its arguments; None for another program's."""
    if words[:2] == ("python", "-m") and words[2].startswith("pipelines."):
        return words[2].removeprefix("pipelines."), list(words[3:])
    return (words[1], list(words[2:])) if words[0] == "sahub" and len(words) > 1 else None


def test_every_block_is_of_a_kind_that_is_checked() -> None:
    kinds = {language for page in PAGES for language, _ in BLOCK.findall(page.read_text(encoding="utf-8"))}
    assert kinds <= {"", "bash", "sh", "python", "yaml", "toml", "mermaid", "{toctree}"}


@pytest.mark.parametrize("page", RUN)
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    found = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(found) >= 2
    scope: dict[str, object] = {"__name__": "docs"}
    for block in found:
        exec(compile(block, page, "exec"), scope)


def test_other_blocks_are_what_they_say() -> None:
    assert all((ROOT / "tests" / test).is_file() for test in ELSEWHERE.values())
    for page, text in blocks("python"):
        assert page.relative_to(DOCS).as_posix() in (*RUN, *ELSEWHERE), f"{page}: nothing runs its code"
        compile(text, str(page), "exec")
    for _, text in blocks("yaml"):
        assert yaml.safe_load(text)
    for _, text in blocks("toml"):
        assert tomllib.loads(text)


def test_every_command_is_one_with_keys_that_there_are() -> None:
    keys = {name: {key.path for key in known_keys(name, conf_dir())} for name in COMMANDS}
    every = set().union(*keys.values(), GROUPS)
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text("utf-8"), re.MULTILINE))
    assert len(commands()) > 80
    for where, words in commands():
        if words[0] == "make":
            assert {*words[1:2]} <= targets, where
            continue
        found = own(words)
        if found is None:
            assert words[0] in OTHERS, where
            continue
        command, arguments = found
        typed = {address(word) for word in arguments if "=" in word and not word.startswith("-")}
        if command in COMMANDS:
            known = {one for one in typed if one in every or one.startswith(OPEN)}
        else:
            assert command in {*FILE_COMMANDS, "COMMAND"}, where
            text = (ROOT / "sahub" / "cli" / "commands" / f"{command}.py").read_text("utf-8")
            file = conf_dir() / f"{command}.yaml"
            text += file.read_text("utf-8") if file.exists() else ""
            known = {one for one in typed if re.search(rf"\b{one}\b", text) or one in every or one.startswith(OPEN)}
        assert sorted(typed - known) == [], where


def test_every_public_name_is_shown():
    import sahub

    text = (DOCS / "python.md").read_text(encoding="utf-8")
    assert [name for name in sahub.__all__ if f"sahub.{name}" not in text and f"`{name}`" not in text] == []
    assert all(callable(getattr(sahub, name)) for name in sahub.__all__)


def test_every_link_leads_somewhere():
    def anchors(page):
        heads = re.findall(r"^#+ (.*)$", page.read_text(encoding="utf-8"), re.MULTILINE)
        return {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}

    for page in PAGES:
        for link in re.findall(r"\]\((?!https?:)([^)\s]+)\)", page.read_text(encoding="utf-8")):
            file, _, anchor = link.partition("#")
            target = page.parent / file if file else page
            assert target.exists(), f"{page}: {link}"
            assert not anchor or anchor in anchors(target), f"{page}: {link}"


def test_every_page_is_in_the_contents() -> None:
    listed = set()
    for index in (DOCS / "index.md", DOCS / "adr" / "README.md", DOCS / "benchmarks" / "README.md"):
        for language, text in BLOCK.findall(index.read_text("utf-8")):
            names = [line.rpartition("<")[2].rstrip(">") for line in text.splitlines() if line and line[0] != ":"]
            names = names if language == "{toctree}" else []
            listed |= {file.resolve() for name in names for file in index.parent.glob(f"{name}.md")}
            listed |= {(index.parent / f"{name}.md").resolve() for name in names}
    assert sorted(str(page) for page in PAGES if page not in listed and page != DOCS / "index.md") == []


def test_the_reference_is_what_the_code_says() -> None:
    made = runpy.run_path(str(DOCS / "make_reference.py"))
    for name, page in made["PAGES"].items():
        said = (DOCS / "reference" / name).read_text("utf-8")
        assert page() == said, f"docs/reference/{name} is old: python docs/make_reference.py"


def test_the_readme_names_all_that_can_be_chosen():
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("`_", "`sparsity_")
    tasks = group_choices("task", [conf_dir()])
    assert f"{len(tasks)} tasks" in text
    wanted = {task.partition("/")[0] for task in tasks}
    for group in {*GROUPS} - {"task", "experiment"}:
        wanted |= {*group_choices(group, [conf_dir()])}
    assert sorted(name for name in wanted if not re.search(rf"[`=]{name}[` ]", text)) == []


@pytest.mark.slow
def test_every_command_on_a_page_composes():
    from sahub.config.cell import compose_cell
    from sahub.errors import ConfigError

    for where, words in commands():
        command, arguments = own(words) or ("", [])
        typed = [item for item in arguments if item != "DIR" and not item.startswith("configs=")]
        no_cell = {"-m", "--config-dir", "--help", "+experiment=debug"} & {*typed}
        if command not in COMMANDS or no_cell or any(item.endswith("/all") for item in typed):
            continue
        try:
            compose_cell(typed, command=command)
        except ConfigError as error:
            pytest.fail(f"{where}: {error}")


@pytest.mark.slow
def test_every_command_that_needs_no_data_is_accepted(tmp_path: Path) -> None:
    for page in PAGES:
        for above, within, text in FILE.findall(page.read_text("utf-8")):
            file = tmp_path / (above or within)
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text, "utf-8")
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    tried = 0
    for where, words in commands():
        command, arguments = own(words) or ("", [])
        text = " ".join(arguments)
        tasks = re.findall(r"task=['\"]?(?:glob\()?(\w+)", text)
        local = not any(word in text for word in FETCHED) and {*tasks} <= {"ruler"} and "--config-dir conf" not in text
        costly = re.search(
            r"configs=|DIR|compute=gpu|my_|leaderboard", text
        )  # the last has hundreds of cells to compose
        if command not in {"search", "validate"} or not local or costly:
            continue
        tried += 1
        done = sahub(
            command, *arguments, *(() if "--help" in arguments else ("dry_run=true", "compute=inline")), cwd=tmp_path
        )
        assert (done.returncode, done.stderr) == (0, ""), where
    assert tried > 15
