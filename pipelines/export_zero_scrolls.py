"""ZeroSCROLLS's leaderboard file: `python -m pipelines.export_zero_scrolls output=predictions.csv task.path=DIR ...`.

Further arguments are those of `pipelines.validate`; `tasks=quality,qasper` answers fewer than all ten.
"""

import sys
from pathlib import Path


def main(arguments: list[str]) -> int:
    """Answer every question of the test split and write Task, ID, Prediction; the exit status."""
    from sahub.errors import SahubError, disk_trouble
    from sahub.leaderboard import export

    given = dict(item.split("=", 1) for item in arguments if item.startswith(("output=", "tasks=")))
    if not given.get("output") or {"-h", "--help"} & set(arguments):
        sys.stderr.write(f"{(__doc__ or '').strip()}\n")
        return 0 if {"-h", "--help"} & set(arguments) else 2
    overrides = [item for item in arguments if not item.startswith(("output=", "tasks="))]
    chosen = {"subsets": given["tasks"].split(",")} if "tasks" in given else {}
    try:
        count = export(Path(given["output"]).expanduser(), overrides, **chosen)
    except (SahubError, OSError) as error:
        sys.stderr.write(f"{(disk_trouble(error) or str(error)).rstrip()}\n")
        return 1
    sys.stdout.write(f"{given['output']}: {count} predictions{'' if not chosen else ' of ' + given['tasks']}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
