"""ZeroSCROLLS's leaderboard file: `sahub export_zero_scrolls output=predictions.csv task.path=DIR ...`.

Further arguments are those of `sahub validate`; `tasks=quality,qasper` answers fewer than all ten.
"""

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Answer every question of the test split and write Task, ID, Prediction; the exit status."""
    from sahub.config.arguments import taken  # light until the keys are right
    from sahub.config.explain import TROUBLE, said
    from sahub.run.zero_scrolls_export import export

    given, overrides = taken(arguments, "output", "tasks")
    if not given.get("output") or {"-h", "--help"} & set(arguments):
        sys.stderr.write(f"{(__doc__ or '').strip()}\n")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    chosen = {"subsets": given["tasks"].split(",")} if "tasks" in given else {}
    try:
        count = export(Path(given["output"]).expanduser(), overrides, **chosen)
    except TROUBLE as error:
        sys.stderr.write(f"{said(error)}\n")
        return 1
    sys.stdout.write(f"{given['output']}: {count} predictions{'' if not chosen else ' of ' + given['tasks']}\n")
    return 0
