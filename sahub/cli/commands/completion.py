"""Completion of commands, keys and choices in bash: `sahub completion`."""

import sys
from collections.abc import Sequence
from pathlib import Path

from sahub.config.choices import COMMANDS, FILE_COMMANDS

USAGE = """\
Print what bash has to read once to complete sahub's commands, keys and choices.

  eval "$(sahub completion)"        in this shell; in ~/.bashrc for all
"""


def main(arguments: Sequence[str]) -> int:
    """Print the script; the exit status."""
    if arguments:
        sys.stdout.write(USAGE)
        return 0 if {"-h", "--help"} & set(arguments) else 2
    script = (Path(__file__).parents[1] / "completion.bash").read_text("utf-8")
    sys.stdout.write(script.replace("COMMANDS", " ".join((*COMMANDS, *FILE_COMMANDS))))
    return 0
