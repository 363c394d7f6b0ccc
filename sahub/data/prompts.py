"""Our wording for data without ready prompts."""

from functools import cache
from typing import NamedTuple

import yaml

from sahub.files.package import ROOT


class Prompt(NamedTuple):
    """What stands around a context; {input} and {options} are filled in by the task."""

    before: str
    after: str
    prefix: str


@cache
def prompts(benchmark: str) -> dict[str, Prompt]:
    """The wording of every subset of a benchmark."""
    file = ROOT / "texts" / "prompts.yaml"
    found = yaml.safe_load(file.read_text(encoding="utf-8"))[benchmark]
    return {subset: Prompt(**parts) for subset, parts in found.items()}
