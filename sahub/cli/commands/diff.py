"""Two finished runs beside each other: `sahub diff a=DIR b=DIR`."""

from collections.abc import Sequence

from sahub.cli.commands import of_keys

USAGE = """\
Every key in which two finished runs differ, and what moved: paired by question where the contexts are the same.

  sahub diff a=DIR b=DIR
"""


def main(arguments: Sequence[str]) -> int:
    """Read both runs, print what differs; the exit status."""
    return of_keys(arguments, USAGE, ("a", "b"), _differences)


def _differences(given: dict[str, str], _: list[str]) -> str:
    from sahub.report.run_diff import lines  # light until the keys are right
    from sahub.report.run_files import read_run  # light until the keys are right

    return "".join(f"{line}\n" for line in lines(read_run(given["a"], "a"), read_run(given["b"], "b")))
