"""The predecessor's result as a best file: `sahub import_hub file=result.json [output=imported]`."""

from collections.abc import Sequence

from sahub.cli.commands import of_keys

USAGE = """\
Turn a result file of the predecessor into a best file, and name what it cannot carry.

  sahub import_hub file=RESULT.json [output=imported] [KEY=VALUE ...]

file     JSON that the predecessor's search wrote
output   folder; `sahub validate configs=FOLDER` then runs all that is in it
Everything else is an override of the cell, over what the file says: model=embedded task=ruler/vt objective=sparsity_10
"""


def main(arguments: Sequence[str]) -> int:
    """Read the file, write the best file, say what it does not carry; the exit status."""
    return of_keys(arguments, USAGE, ("file",), _imported, more=("output",), takes_overrides=True)


def _imported(given: dict[str, str], typed: list[str]) -> str:
    from sahub.cli.predecessor_import import import_file  # light until the keys are right

    found = import_file(given["file"], given.get("output", "imported"), typed)
    lines = [f"{found.path}: written; to validate it: {found.command}"]
    lines += [f"not carried: {one.field}={str(one.value)[:100]} ({one.reason})" for one in found.lost]
    return "".join(f"{line}\n" for line in lines)
