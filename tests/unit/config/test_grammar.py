"""What sahub writes in Hydra's grammar is what Hydra reads: any text, number, list or mapping, or a refusal by name."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from inputs import VALUES, same
from omegaconf import OmegaConf

from sahub.config.cell import compose_cell
from sahub.config.grammar import parsed, written
from sahub.errors import ConfigError
from sahub.results.reproduce import reproducing

QUIET = {"deadline": None, "suppress_health_check": [HealthCheck.too_slow]}


def round_trip(value: object) -> bool:
    """Whether the value came back; it may be refused by name instead."""
    try:
        text = written(value)
    except ConfigError as error:
        return "cannot be a key of a mapping" in str(error)
    override = parsed(f"key={text}")
    assert same(override.value(), value), text
    assert same(parsed(f"key={override.get_value_string()}").value(), value)  # as Hydra writes it for a sweep's job
    return True


@settings(max_examples=300, **QUIET)
@given(VALUES)
def test_every_value_comes_back_as_it_was(value):
    assert round_trip(value)


@pytest.mark.slow
@settings(max_examples=20_000, **QUIET)
@given(VALUES)
def test_twenty_thousand_values_come_back(value):
    assert round_trip(value)


@pytest.mark.parametrize(
    "text",
    ["", " ", "null", "True", "nan", "-inf", "1_0", "1e5", "0x10", "~", "~/données", "a,b", "x=1 (best)", "[a]",
     "{a:b}", "it's", 'say "x"', "\\", "a\\", "\\'", '\\"', '"', "'", "a\\\\", '\\\\"', "#1", "a b", " a", "\t",
     "\n", "é", "①", "\U0001d7d9", "-a", ".a", "5", "5.", "+", "$a", "choice(a)", "glob(*)", "a:b", "Ⅷ"],
)  # fmt: skip
def test_texts_that_could_mean_something_else_are_texts(text):
    assert round_trip(text)
    assert round_trip([text, {"a": text}, text])


@pytest.mark.parametrize("key", ["a b", "a:b", "x(1)", 7, -2, 0.5, True, None, "a=b", "1a"])
def test_keys_that_the_grammar_can_say(key):
    assert round_trip({key: 1})


@pytest.mark.parametrize("key", ["é", "1", "true", "null", "", "'", '"x"', "#", "1.5", "a\nb"])
def test_keys_that_it_cannot_are_refused_by_name(key):
    with pytest.raises(ConfigError, match="cannot be a key of a mapping"):
        written({key: 1})


@settings(max_examples=8, **QUIET)
@given(st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=12).filter(lambda text: "${" not in text))
def test_a_cell_with_any_text_is_composed_again(text):
    cell = compose_cell([f"task.split={written(text)}", f"task.where={written({'a b': text})}"])
    again = compose_cell(reproducing(cell))
    assert (again.settings.task.split, again.settings.task.where) == (text, {"a b": text})
    assert OmegaConf.create(again.composed) == OmegaConf.create(cell.composed)
