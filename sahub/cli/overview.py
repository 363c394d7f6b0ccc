"""All commands, a line each."""

import ast
import textwrap
from pathlib import Path

from sahub.cli.help import ABOUT
from sahub.config.choices import COMMANDS, FILE_COMMANDS, command


def overview() -> str:
    """What `sahub` alone prints."""
    lines = [_line(name, ABOUT[name].splitlines()[0]) for name in COMMANDS]
    files = [_line(name, _first_words(name)) for name in FILE_COMMANDS]
    calls = command("COMMAND")
    return "\n".join(
        [
            f"usage: {calls} [KEY=VALUE ...]",
            "",
            *lines,
            "",
            "Files:",
            *files,
            "",
            f"{command(COMMANDS[0])} --help explains every key, --help KEY one of them; sahub --version",
            "",
        ]
    )


def _line(name: str, text: str) -> str:
    return textwrap.fill(text, 118, initial_indent=f"  {name:<22}", subsequent_indent=" " * 24)


def _first_words(name: str) -> str:
    """The first line of a command's module, read and not imported: listing loads nothing."""
    text = (Path(__file__).parent / "commands" / f"{name}.py").read_text("utf-8")
    said = (ast.get_docstring(ast.parse(text)) or "").splitlines()[0]
    return said.partition(": `sahub ")[0].removesuffix(".") + "."
