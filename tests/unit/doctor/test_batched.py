"""Answers of a batch are those of a session, one by one, whatever the lengths beside them."""

import pytest
from conftest import FAMILIES

from sahub.doctor import batched
from sahub.engine.model import wrap_model
from sahub.engine.session import Attention, Session

TEXTS = ["short", "A somewhat longer text about nothing. " * 3, "word " * 40, "A fox. " * 11]


def prompts(model, **ends):
    return [batched.Prompt(ids=tuple(model.context_ids(text)), max_new_tokens=9, **ends) for text in TEXTS]


def alone(model, prompt) -> tuple[list[int], list[float]]:
    """The answer of a session, and how far its first choices lie above the second."""
    session = Session(model)
    run = session.generate(
        session.prefix(prompt.ids[:-1], 16),
        [prompt.ids[-1]],
        Attention(),
        max_new_tokens=prompt.max_new_tokens,
        line_stop=prompt.line_stop,
    )
    best = run.logits.topk(2).values
    return run.ids, (best[:, 0] - best[:, 1]).tolist()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("line_stop", [None, 10, 40])
def test_a_batch_answers_as_a_session_does(family, line_stop, make_model, tokenizer):
    model = wrap_model(make_model(family), tokenizer, name=family)
    asked = prompts(model, line_stop=line_stop)
    for prompt, ids in zip(asked, batched.answers(model, asked), strict=True):
        expected, gaps = alone(model, prompt)
        sure = next((n for n, gap in enumerate(gaps) if gap < 1e-3), len(gaps))
        assert ids[:sure] == expected[:sure]
        assert len(ids) == len(expected) or sure < len(gaps)


def test_answers_end_where_they_are_over(make_model, tokenizer):
    model = wrap_model(make_model(), tokenizer, name="tiny")
    asked = prompts(model)
    free = batched.answers(model, asked)
    model.stop_ids = frozenset({free[1][2]})
    stopped = batched.answers(model, asked)
    assert stopped[1] == free[1][: free[1].index(free[1][2]) + 1]
    decided = batched.answers(model, asked, lambda index, ids: index == 3 and len(ids) == 2)
    assert decided[3] == stopped[3][:2]
    assert decided[:3] == stopped[:3]


def test_long_prompts_share_a_batch_with_fewer(make_model, tokenizer):
    model = wrap_model(make_model(), tokenizer, name="tiny")
    sizes = [batched.size_of(model, tokens) for tokens in (100, 1_000_000, 10**9)]
    assert sizes == [batched.MOST, 2, 1]
    assert batched.fits(model)
