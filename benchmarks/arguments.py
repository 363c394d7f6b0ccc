"""`key=value` arguments of a benchmark, checked before anything is measured."""

import sys
from collections.abc import Collection, Mapping, Sequence

from sahub.errors import did_you_mean

NO_CHOICES: Mapping[str, Collection[str]] = {}


def given(
    usual: Mapping[str, str], arguments: Sequence[str], choices: Mapping[str, Collection[str]] = NO_CHOICES
) -> dict[str, str]:
    """The usual values and what was typed over them; `--help` prints what the script says of itself.

    Where the usual value is of whole numbers, others must be, from 1 on; `choices` names what else may be typed.
    Exits with a line for an argument that cannot be.
    """
    if {"-h", "--help"} & set(arguments):
        keys = " ".join(f"{key}={value}" for key, value in usual.items())
        sys.stdout.write(f"{sys.modules['__main__'].__doc__}\n{keys}\n")
        sys.exit(0)
    typed: dict[str, str] = {}
    for argument in arguments:
        key, _, value = argument.partition("=")
        if key not in usual:
            sys.exit(f"{argument}: no such key{did_you_mean(key, usual)}; must be one of {', '.join(usual)}")
        whole = usual[key].replace(",", "").isdigit()
        for one in value.split(","):
            if whole and not (one.isdecimal() and int(one)):
                sys.exit(f"{argument}: must be whole numbers from 1 on, such as {key}={usual[key]}")
            if key in choices and one not in choices[key]:
                known = ", ".join(choices[key])
                sys.exit(f"{argument}: {one or 'nothing'} is none of {known}{did_you_mean(one, choices[key])}")
        typed[key] = value
    return {**usual, **typed}
