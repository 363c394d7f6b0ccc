"""One page of finished runs: `sahub report runs=DIR[,DIR...] [output=report.html]`."""

from collections.abc import Sequence

from sahub.cli.commands import of_keys

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
    return of_keys(arguments, USAGE, ("runs",), _page, more=("output",))


def _page(given: dict[str, str], _: list[str]) -> str:
    from sahub.report.report import write_report  # light until the keys are right

    return f"{write_report(given['runs'].split(','), given.get('output'))}: written\n"
