"""What people, their machines and strangers put in: hypothesis strategies that the tests and the fuzzer share."""

import math
from typing import Any

from hypothesis import strategies as st

SCALARS = st.characters(exclude_categories=["Cs"])  # every Unicode scalar value
SIGNS = st.sampled_from([*"\\'\"\t\n #=(){}[],:$~+-*@?|%&!<>.;/ 019éΩ①"])
WORDS = st.sampled_from(
    ["null", "true", "False", "nan", "inf", "-Inf", "1", "01", "1_0", "1e5", "-7", ".5", "5.", "choice(a)", "a,b",
     "???", "${a}", "${oc.env:HOME}", "_target_", "~", "~/x", "../..", "/", "é", "x" * 300],
)  # fmt: skip
TEXTS = st.one_of(st.text(SCALARS, max_size=20), st.text(SIGNS, max_size=8), WORDS)
NUMBERS = st.one_of(st.integers(-(10**20), 10**20), st.floats())
PLAIN = st.one_of(TEXTS, NUMBERS, st.booleans(), st.none())
KEYS = st.one_of(st.from_regex(r"[a-z_][a-z0-9_-]{0,6}", fullmatch=True), PLAIN)
VALUES = st.recursive(
    PLAIN, lambda below: st.lists(below, max_size=4) | st.dictionaries(KEYS, below, max_size=3), max_leaves=8
)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal and of the same types, NaN equal to itself."""
    if isinstance(one, dict) and isinstance(other, dict):
        return len(one) == len(other) and all(
            same(a, b) and same(one[a], other[b]) for a, b in zip(one, other, strict=True)
        )
    if isinstance(one, list) and isinstance(other, list):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, float) and isinstance(other, float) and math.isnan(one):
        return math.isnan(other)
    return type(one) is type(other) and one == other


# What a cell of a data file may hold, and what JSON holds anywhere.
ANSWERS = st.sampled_from(
    ["7", "12.0", "twelve", "Paragraph 3", "段落3", "A", "ABCD", "62%", "2, 1, 3", "['a']", "[1, 2]", "{}",
     '{"<mask-0>": "x"}', "{'<mask-0>': 'x'}", "none", "yes", "Person", "The answer.", "a\tb", "\ud83d"],
)  # fmt: skip
CELLS = st.recursive(
    st.one_of(ANSWERS, TEXTS, st.text("abc 12.,[]{}'\"", max_size=12), NUMBERS, st.booleans(), st.none()),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(TEXTS, below, max_size=2),
    max_leaves=5,
)


def changed(value: Any, path: list[int], to: Any) -> Any:
    """A value of JSON with what stands at a place of it, found by numbers, in another's place, or gone (`to` None)."""
    if not path or not isinstance(value, dict | list) or not value:
        return to
    first, *rest = path
    if isinstance(value, list):
        place = first % len(value)
        return [changed(item, rest, to) if number == place else item for number, item in enumerate(value)]
    name = sorted(value)[first % len(value)]
    if not rest and to is None:
        return {key: item for key, item in value.items() if key != name}
    return {key: changed(item, rest, to) if key == name else item for key, item in value.items()}


PLACES = st.lists(st.integers(0, 50), min_size=1, max_size=4)
