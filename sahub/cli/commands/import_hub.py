"""The predecessor's result as a best file: `sahub import_hub file=result.json [output=imported]`."""

import sys
from collections.abc import Sequence

USAGE = """\
Turn a result file of the predecessor into a best file, and name what it cannot carry.

  sahub import_hub file=RESULT.json [output=imported] [KEY=VALUE ...]

file     JSON that the predecessor's search wrote
output   folder; `sahub validate configs=FOLDER` then runs all that is in it
Everything else is an override of the cell, over what the file says: model=embedded task=ruler/vt objective=sparsity_10
"""


def main(arguments: Sequence[str]) -> int:
    """Read the file, write the best file, say what it does not carry; the exit status."""
    from sahub.config.arguments import taken  # light until the keys are right

    given, typed = taken(arguments, "file", "output")
    if {"-h", "--help"} & set(arguments):
        sys.stdout.write(USAGE)
        return 0
    if not given.get("file"):
        sys.stderr.write(f"file=...: must be given\n{USAGE}")
        return 2
    from sahub.cli.predecessor_import import import_file  # light until the keys are right
    from sahub.config.explain import TROUBLE, said

    try:
        found = import_file(given["file"], given.get("output", "imported"), typed)
    except TROUBLE as error:
        sys.stderr.write(f"{said(error)}\n")
        return 1
    lines = [f"{found.path}: written; to validate it: {found.command}"]
    lines += [f"not carried: {one.field}={str(one.value)[:100]} ({one.reason})" for one in found.lost]
    sys.stdout.write("".join(f"{line}\n" for line in lines))
    return 0
