"""One page of finished runs: `sahub report runs=DIR[,DIR...] [output=report.html]`."""

import sys
from collections.abc import Sequence

USAGE = """\
One HTML page that shows what was found, how sure it is, and how to repeat it.

  sahub report runs=DIR[,DIR...] [output=FILE.html]

runs     directories of finished runs, or folders with such directories below them
output   the page; its plots as PNG and CSV in `plots` beside it (default: report.html in the directory of a single run,
         in this folder for several)
Cells of different protocols stand in tables of their own, which name what differs.
"""


def main(arguments: Sequence[str]) -> int:
    """Read the runs, write the page; the exit status."""
    from sahub.config.arguments import taken  # light until the keys are right

    given, others = taken(arguments, "runs", "output")
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    if others or not given.get("runs"):
        sys.stderr.write(f"{others[0] + ': no such key' if others else 'runs=...: must be given'}\n{USAGE}")
        return 2
    from sahub.config.explain import TROUBLE, said  # light until the keys are right
    from sahub.report.report import write_report

    try:
        file = write_report(given["runs"].split(","), given.get("output"))
    except TROUBLE as error:
        sys.stderr.write(f"{said(error)}\n")
        return 1
    sys.stdout.write(f"{file}: written\n")
    return 0
