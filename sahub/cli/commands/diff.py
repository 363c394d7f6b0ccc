"""Two finished runs beside each other: `sahub diff a=DIR b=DIR`."""

import sys
from collections.abc import Sequence

USAGE = """\
Every key in which two finished runs differ, and what moved: paired by question where the contexts are the same.

  sahub diff a=DIR b=DIR
"""


def main(arguments: Sequence[str]) -> int:
    """Read both runs, print what differs; the exit status."""
    from sahub.config.arguments import taken  # light until the keys are right

    given, others = taken(arguments, "a", "b")
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    lacking = [name for name in ("a", "b") if not given.get(name)]
    if others or lacking:
        sys.stderr.write(f"{others[0] + ': no such key' if others else lacking[0] + '=...: must be given'}\n{USAGE}")
        return 2
    from sahub.config.explain import TROUBLE, said  # light until the keys are right
    from sahub.report.run_diff import lines
    from sahub.report.run_files import read_run

    try:
        both = [read_run(given[name], name) for name in ("a", "b")]
        text = "".join(f"{line}\n" for line in lines(*both))
    except TROUBLE as error:
        sys.stderr.write(f"{said(error)}\n")
        return 1
    sys.stdout.write(text)
    return 0
