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
