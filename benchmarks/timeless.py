"""The files of a run without what may differ from one run to the next: times, who computed, and where.

`python benchmarks/timeless.py RUN OTHER` compares two runs, also of versions that call a key differently.
"""

import csv
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

TIMED = {
    "seconds",
    "work",
    "computed",
    "served",
    "compute",
    "threads",
    "cache_dir",
    "results_dir",
    "directory",
    "message",
    "commands",
}
RENAMED = {"against": "compared", "compare_with": "compared"}  # keys that were one in earlier versions
HOW = ("compute", "++", "search.max_concurrent", "validate.max_concurrent")  # overrides that move no figure
FILES = ("optimal_configs/*.json", "optimal_configs/*.csv", "benchmark_results/**/*.*", "benchmark_summary.json")


def timeless(run: Path) -> dict[str, str]:
    """Every result file below a run's directory, by its path in it, as text that a repetition gives again."""
    found = dict(sorted(_files(run)))
    assert found, f"{run}: no results"
    return found


def _files(run: Path) -> Iterator[tuple[str, str]]:
    for pattern in FILES:
        for file in run.rglob(pattern):
            yield file.relative_to(run).as_posix(), _text(file)


def _text(file: Path) -> str:
    text = file.read_text(encoding="utf-8")
    if file.suffix == ".json":
        return json.dumps(_without(json.loads(text)), sort_keys=True)
    if file.suffix == ".csv":
        rows = csv.DictReader(text.splitlines(keepends=True))
        return "\n".join(json.dumps(_without(row), sort_keys=True) for row in rows)
    return text


def _without(value: Any) -> Any:
    if isinstance(value, dict):
        return {RENAMED.get(key, key): _without(item) for key, item in value.items() if key not in TIMED}
    if isinstance(value, list):
        return [_without(item) for item in value if not (isinstance(item, str) and item.startswith(HOW))]
    return value


def main() -> None:
    """Print every file that is not the same; exit status 1 where there is one."""
    one, other = (timeless(Path(folder)) for folder in sys.argv[1:])
    differ = sorted(name for name in {*one, *other} if one.get(name) != other.get(name))
    print(f"{len({*one, *other})} files, {len(differ)} not the same", *differ, sep="\n")  # noqa: T201
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
