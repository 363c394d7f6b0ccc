"""The code in the documentation runs as it is written."""

import re
from pathlib import Path

import pytest

DOCS = Path(__file__).parents[2] / "docs"


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
