"""A few cases of every family of the fuzzer, benchmarks/fuzz.py; the slow test has more."""

import pytest
from fuzz import run
from fuzz_families import FAMILIES

FEW = {"overrides": 5, "files": 5, "rows": 30, "scores": 150, "caches": 8}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_few_cases_of_a_family(name: str) -> None:
    found: dict[str, str] = {}
    assert run(name, FEW[name], 7, found) > 0
    assert found == {}


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_more_cases_of_a_family(name: str) -> None:
    found: dict[str, str] = {}
    run(name, 10 * FEW[name], 11, found)
    assert found == {}
