"""What is typed after a benchmark's name: read, or named before anything is measured."""

import pytest
from arguments import given

USUAL = {"lengths": "512,1024", "methods": "quest,pqcache", "model": "embedded"}
CHOICES = {"methods": ("quest", "pqcache", "snapkv")}


def test_what_is_typed_stands_over_what_is_usual():
    assert given(USUAL, [], CHOICES) == USUAL
    typed = given(USUAL, ["lengths=64", "methods=snapkv,quest", "model=a=b"], CHOICES)
    assert typed == {"lengths": "64", "methods": "snapkv,quest", "model": "a=b"}


@pytest.mark.parametrize(
    ("argument", "said"),
    [
        ("lenghts=64", "lenghts=64: no such key; did you mean lengths?; must be one of lengths, methods, model"),
        ("--lengths", "--lengths: no such key"),
        *((f"lengths={value}", "must be whole numbers from 1 on") for value in ("abc", "-4", "0", "64,", "", "1.5")),
        ("methods=qest", "methods=qest: qest is none of quest, pqcache, snapkv; did you mean quest?"),
        ("methods=", "methods=: nothing is none of"),
    ],
)
def test_what_cannot_be_ends_with_a_line(argument, said):
    with pytest.raises(SystemExit) as end:
        given(USUAL, [argument], CHOICES)
    assert said in str(end.value)
