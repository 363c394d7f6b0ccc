"""The code in the documentation runs as it is written."""

import re
import shlex
from pathlib import Path

import pytest

from sahub.config.choices import COMMANDS, GROUPS, conf_dir, group_choices

ROOT = Path(__file__).parents[2]
DOCS = ROOT / "docs"
PAGES = [*ROOT.glob("*.md"), *DOCS.rglob("*.md"), ROOT / "sahub" / "embedded" / "README.md"]


@pytest.mark.parametrize("page", ["python.md"])
def test_every_block_runs(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"^```python\n(.*?)^```", (DOCS / page).read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE)
    assert len(blocks) >= 5
    scope: dict[str, object] = {"__name__": "docs"}
    for block in blocks:
        exec(compile(block, page, "exec"), scope)


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

    lines = set()
    for page in PAGES:
        text = page.read_text(encoding="utf-8").replace("\\\n", " ")
        lines |= {*re.findall(rf"^    python -m pipelines\.({'|'.join(COMMANDS)}) ([^#\n]+)", text, re.MULTILINE)}
    assert len(lines) > 20
    for command, rest in lines:
        typed = [item for item in shlex.split(rest) if item != "..." and not item.startswith("configs=")]
        if {"-m", "--config-dir", "--help"} & {*typed} or any(item.endswith("/all") for item in typed):
            continue
        try:
            compose_cell(typed, command=command)
        except ConfigError as error:
            pytest.fail(f"{command} {rest}: {error}")
