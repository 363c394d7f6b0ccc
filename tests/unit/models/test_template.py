"""Chat templates: split without a mark, at one date, thoughts closed; what does not let our turn through is named."""

import copy
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.data.examples import Example, Question, example_id
from sahub.engine.model import Model, wrap_model
from sahub.engine.requests import prepare
from sahub.errors import ConfigError

TURNS = "{% for m in messages %}[{{ m.role }}] {{ m.content }}\n{% endfor %}"
DATE = "{{ bos_token }}[now] {{ strftime_now('%d %b %Y %H:%M') }}\n" + TURNS + "[assistant] "


def talking(source: str, make_model, tokenizer, **asked: str) -> Model:
    words = copy.deepcopy(tokenizer)
    words.chat_template = source
    return wrap_model(make_model(), words, name="talker", **asked)


def prompt(model: Model, context: str, question: str, prefix: str = "") -> str:
    return str(model.tokenizer.decode([*model.context_ids(context), *model.question_ids(question, prefix)]))


@pytest.fixture(scope="module")
def says(make_model, tokenizer):
    """The prompt that a template makes of a context and a question."""

    def made(
        template: str, context: str = "Some text.", question: str = " Why?", prefix: str = "", **asked: str
    ) -> str:
        return prompt(talking(template, make_model, tokenizer, **asked), context, question, prefix)

    return made


REFUSED = {
    "takes parts": (
        "{% for m in messages %}{% for p in m.content %}{% if p['type'] == 'text' %}{{ p['text'] }}{% endif %}"
        "{% endfor %}{% endfor %}[assistant] ",
        "drops a user's turn",
    ),
    "system alone": (
        "{% for m in messages if m.role == 'system' %}{{ m.content }}{% endfor %}>",
        "drops a user's turn",
    ),
    "asks for a system turn": (
        "{{ raise_exception('a system turn first') }}",
        "refuses a user's turn .*: a system turn",
    ),
    "wrong syntax": ("{% for m in messages %}{{ m.content }}", "refuses a user's turn"),
    "reads what is not there": ("{{ messages[1].content }}", "refuses a user's turn"),
    "repeats": (TURNS + TURNS, "repeats or changes a user's turn"),
    "capitals": ("{{ messages[0].content | upper }}>", "repeats or changes a user's turn"),
    "length": ("{{ messages[0].content | length }}>", "drops a user's turn"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_a_template_without_our_turn_is_named_with_the_way_out(case, make_model, tokenizer):
    template, message = REFUSED[case]
    with pytest.raises(ConfigError, match=message) as caught:
        talking(template, make_model, tokenizer)
    assert "protocol.template=auto: the chat template of talker" in str(caught.value)
    assert str(caught.value).endswith("protocol.template=none")
    assert "\n" not in str(caught.value)
    model = talking(template, make_model, tokenizer, template="none")
    assert prompt(model, "Some text.", " Why?") == "<|bos|>Some text. Why?\n"


CHANGES = {
    "deletes signs": "{{ bos_token }}[user] {{ messages[0].content | replace('<|', '') }} [end]",
    "escapes": "{{ bos_token }}[user] {{ messages[0].content | e }} [end]",
    "as JSON": "{{ bos_token }}[user] {{ messages[0].content | tojson }} [end]",
    "another digit": "{{ bos_token }}[user] {{ messages[0].content | replace('7', '8') }} [end]",
    "squashed spaces": "{{ bos_token }}[user] {{ messages[0].content.split() | join(' ') }} [end]",
    "repeats what is long": (
        "{{ bos_token }}[user] {{ messages[0].content }}"
        "{% if messages[0].content | length > 9 %} {{ messages[0].content }}{% endif %} [end]"
    ),
    "cuts": "{{ bos_token }}[user] {{ messages[0].content[:20] }} [end]",
    "says the length": "{{ bos_token }}[user, {{ messages[0].content | length > 9 }}] {{ messages[0].content }} [end]",
    "trims": "{{ bos_token }}[user] {{ messages[0].content | trim }} [end]",
    "trims, its seam": "{{ bos_token }}[user]{{ messages[0].content | trim }}\n[end]",
    "plain": "{{ bos_token }}[user] {{ messages[0].content }} [end]",
}
SIGNS = st.text(alphabet="ab <|>\n\"'&[]{}end78\\", max_size=30)


@pytest.mark.parametrize("case", CHANGES)
@settings(max_examples=40, deadline=None)
@given(context=SIGNS, question=SIGNS)
def test_a_text_comes_through_as_it_is_or_is_named(case, context, question, make_model, tokenizer):
    """What is trimmed at the ends of the turn is no change."""
    template = talking(CHANGES[case], make_model, tokenizer).template
    named = ""
    try:
        before, after = template.before(context), template.after(question)
    except ConfigError as error:
        named = str(error)
    if not named:
        assert before.endswith(context if case == "plain" else context.lstrip())
        assert after.startswith(question if case == "plain" else question.rstrip())
        return
    assert case not in ("plain", "trims", "trims, its seam")
    assert re.search("changes the text of a .*; .*protocol.template=none$", named)


CHANGED = {
    "deletes signs": "a <|eos|> b",
    "escapes": "5 < 7",
    "as JSON": 'the "word"',
    "another digit": "The number is 1720.",
    "squashed spaces": "def f():\n    return 1",
    "repeats what is long": "more than nine signs",
    "cuts": "a text that is longer than twenty signs",
    "says the length": "more than nine signs",
}


@pytest.mark.parametrize("case", CHANGED)
def test_a_template_that_changes_a_text_is_named_with_the_place(case, make_model, tokenizer):
    model, text = talking(CHANGES[case], make_model, tokenizer), CHANGED[case]
    assert prompt(model, "plain", "?").startswith("<|bos|>[user")
    for asked, named in ((model.context_ids, "context"), (lambda text: model.question_ids(text, ""), "question")):
        with pytest.raises(ConfigError, match=rf"changes the text of a {named}: .* becomes .*template=none") as caught:
            asked(text)
        assert "\n" not in str(caught.value)


def test_no_text_is_taken_for_the_end_of_the_context(says):
    for mark in ("<|context-ends-here|>", "a", "b", "ab", "[end]", "[assistant] "):
        context = f"{mark}One{mark}two{mark}"
        expected = f"<|bos|>[user] {context} Why?\n[assistant] Because"
        assert says("{{ bos_token }}" + TURNS + "[assistant] ", context, prefix="Because") == expected


def test_a_date_is_the_protocols(says):
    assert "[now] 26 Jul 2024 00:00" in says(DATE)
    assert "[now] 29 Feb 2028 00:00" in says(DATE, date="2028-02-29")
    macro = "{% macro day(f) %}{{ strftime_now(f) }}{% endmacro %}{{ bos_token }}{{ day('%Y') }}" + TURNS
    assert says(macro, date="2031-01-01").startswith("<|bos|>2031")


THOUGHTS = [
    ("{{ '<think>\n' }}", "<think>\n\n</think>\n\n", "<think>\n"),
    ("<think>", "<think>\n\n</think>\n\n", "<think>"),
    ("[THINK]", "[THINK]\n\n[/THINK]\n\n", "[THINK]"),
    ("<|START_THINKING|>", "<|START_THINKING|>\n\n<|END_THINKING|>\n\n", "<|START_THINKING|>"),
    (
        "{% if enable_thinking %}<think>{% else %}<think>\n\n</think>\n\n{% endif %}",
        "<think>\n\n</think>\n\n",
        "<think>",
    ),
    ("{% if thinking %}<think>{% else %}</think>{% endif %}", "</think>", "<think>"),
    ("", "", ""),
]


@pytest.mark.parametrize(("opened", "off", "on"), THOUGHTS)
def test_a_thought_is_closed_or_left_open(opened, off, on, says):
    template = "{{ bos_token }}" + TURNS + "[assistant] " + opened
    assert says(template, prefix="So").endswith(f" Why?\n[assistant] {off}So")
    assert says(template, thinking="on").endswith(f" Why?\n[assistant] {on}")


def test_a_thought_that_cannot_be_closed_is_said(make_model, tokenizer):
    strange = talking("{{ bos_token }}" + TURNS + "[assistant] <|deep_thought|>\n", make_model, tokenizer)
    assert "<|deep_thought|>" in strange.template.doubt
    for known in ("<think>\n", "<think>\n</think>", ""):
        assert talking("{{ bos_token }}" + TURNS + known, make_model, tokenizer).template.doubt is None
    wanted = talking("{{ bos_token }}" + TURNS + "<|deep_thought|>\n", make_model, tokenizer, thinking="on")
    assert wanted.template.doubt is None


def asked(context: str, text: str) -> Example:
    question = Question(id="0", text=text, references=("x",), max_new_tokens=4)
    return Example(id=example_id(context), context=context, questions=(question,))


def test_texts_that_hold_control_tokens_are_counted(make_model, tokenizer, caplog):
    model = talking("{{ bos_token }}" + TURNS, make_model, tokenizer)
    some = [asked("one <|eos|> two", "?"), asked("three", "<|pad|>?"), asked("four", "?")]
    prepare(model, some, max_context_length=200, max_new_tokens=None, truncation="middle", name="task=x")
    assert "task=x contexts=3 with_control_tokens=2 (<|eos|>, <|pad|>)" in caplog.text
    caplog.clear()
    prepare(model, some[2:], max_context_length=200, max_new_tokens=None, truncation="middle")
    assert "control" not in caplog.text


def test_a_token_without_an_embedding_is_named(make_model, tokenizer):
    words = copy.deepcopy(tokenizer)
    words.add_special_tokens({"additional_special_tokens": [f"<|{n}|>" for n in range(600)]})
    model = wrap_model(make_model(), words, name="small")
    assert model.context_ids("plain")
    with pytest.raises(ConfigError, match=r"model=small: its tokenizer gives the token \d+ \(<\|599\|>\).* 512"):
        model.context_ids("a <|599|> b")
    words.chat_template = "<|400|>" + TURNS
    with pytest.raises(ConfigError, match=r"<\|400\|>"):
        wrap_model(make_model(), words, name="small")
