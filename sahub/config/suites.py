"""Suites: names such as `longbench/all` or `ruler/4096` that stand for several tasks, in sweeps and single runs."""

import re
from collections.abc import Iterable, Sequence

SUITE = re.compile(r"(\w+)/(all|[1-9]\d*)")
OF_ANY_LENGTH = ("ruler",)  # benchmarks whose tasks can all be generated: a number is the length of their prompts


def members(name: str, tasks: Sequence[str]) -> list[list[str]] | None:
    """The overrides of every task of a suite, in the order of `tasks`; None where the name is no suite's.

    `<benchmark>/all` is all of its tasks, `ruler/<tokens>` all of RULER's at that length. A task of one's own wins.
    """
    found = SUITE.fullmatch(name)
    if found is None or name in tasks:
        return None
    benchmark, which = found.groups()
    own = [task for task in tasks if task.startswith(f"{benchmark}/")]
    if not own or (which != "all" and benchmark not in OF_ANY_LENGTH):
        return None
    length = [] if which == "all" else [f"task.length={which}"]
    return [[f"task={task}", *length] for task in own]


def suites_of(tasks: Sequence[str]) -> list[str]:
    """The names of all suites, `ruler/LENGTH` for those of every length."""
    benchmarks = dict.fromkeys(task.partition("/")[0] for task in tasks if "/" in task)
    return [f"{name}/all" for name in benchmarks] + [f"{name}/LENGTH" for name in OF_ANY_LENGTH if name in benchmarks]


def expanded(job: Sequence[str], tasks: Sequence[str]) -> list[list[str]]:
    """The jobs of a job: one per task of the suite that it names, else itself."""
    for place, item in enumerate(job):
        key, _, value = item.partition("=")
        found = members(value.strip("'\""), tasks) if key.lstrip("+") == "task" else None
        if found is not None:
            return [[*job[:place], *member, *job[place + 1 :]] for member in found]
    return [list(job)]


def swept(arguments: Iterable[str], tasks: Sequence[str]) -> list[str]:
    """The arguments with a suite's name alone, `task=ruler/all`, as a sweep over it: a single run becomes one."""
    return [
        item if expanded([item], tasks) == [[item]] else "task=choice({})".format(item.partition("=")[2])
        for item in arguments
    ]
