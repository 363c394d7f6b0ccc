"""The map of the code is the code's: rooms, imports by name, words."""

import ast
import re
import tomllib
from pathlib import Path

from sahub.extensions import FAMILIES, members

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
MODULES = {
    ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): ast.parse(file.read_text("utf-8"))
    for file in (ROOT / "sahub").rglob("*.py")
}


def contract(name: str) -> list[str]:
    """What the layers of a contract name, from the top."""
    tools = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"]
    [layers] = [one["layers"] for one in tools["contracts"] if one["name"] == name]
    return [part for layer in layers for part in re.split(r" [|:] ", layer)]


def table(heading: str) -> dict[str, str]:
    """The rows of the page's table below a heading."""
    below = PAGE.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    rows = [line.strip("| ").split(" | ") for line in below.splitlines() if line.startswith("| ")]
    return {row[0]: row[1] for row in rows[1:]}


def test_the_rooms_are_those_of_the_contract_in_its_order():
    assert [name.strip("`") for name in table("The rooms, from the top")] == contract("Rooms import only downwards")


def test_no_heap_of_files():
    assert len(list((ROOT / "sahub").glob("*.py"))) <= 5
    folders = {file.parent for file in (ROOT / "sahub").rglob("*.py")}
    assert {folder.name: n for folder in folders if (n := len(list(folder.glob("*.py")))) > 20} == {}


def test_what_is_imported_by_name_is_listed_with_its_reason():
    found = {
        module
        for module, tree in MODULES.items()
        for node in ast.walk(tree)
        if isinstance(node, ast.Name | ast.Attribute)
        and (node.id if isinstance(node, ast.Name) else node.attr) in {"import_module", "__import__"}
    }
    assert {name.strip("`") for name in table("Imports by name")} == found


def test_families_are_folders_with_members():
    assert all(members(family) for family in FAMILIES)


def test_an_import_inside_a_function_says_why():
    for module, tree in MODULES.items():
        alone = ROOT / f"{module.replace('.', '/')}.py"
        file = alone if alone.is_file() else alone.with_suffix("") / "__init__.py"
        text = file.read_text(encoding="utf-8").splitlines()
        silent = [f"{file.name}:{number + 1}" for number in local_imports(tree) if not explained(text, number)]
        assert silent == [], "no import inside a function without a comment that says why"


def local_imports(tree: ast.Module) -> list[int]:
    """Lines, from 0, of the first import of each block inside a function."""
    found = []
    for function in ast.walk(tree):
        if isinstance(function, ast.FunctionDef):
            lines = [node.lineno - 1 for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)]
            ends = {node.end_lineno for node in ast.walk(function) if isinstance(node, ast.Import | ast.ImportFrom)}
            found += [line for line in sorted(lines) if not {line, line - 1} & ends]  # a blank line may stand between
    return found


def explained(text: list[str], number: int) -> bool:
    """Whether a comment stands on a line, or on the one above it."""
    return "#" in text[number] or text[number - 1].lstrip().startswith("#")


def test_the_words_are_few_enough_to_learn():
    assert 10 <= len(table("Words")) <= 25
