"""How the packaged model was made: seeded, resumable, and what its tokenizer and weights promise."""

import json
import re
from functools import cache
from itertools import product
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer

from sahub.data import vocabulary
from sahub.models.weights import EMBEDDED
from sahub.training import construction, data, documents, loop, tokenizer

PHASES = [
    loop.Phase(length=64, batch=2, tokens=512, repeats=0.5),
    loop.Phase(length=96, batch=2, tokens=384, repeats=0.0),
]


@pytest.fixture(scope="module")
def words():
    return tokenizer.build()


@cache
def packaged() -> Tokenizer:
    return Tokenizer.from_file(str(EMBEDDED / "tokenizer.json"))


def new_model(words):
    ids = (tokenizer.special_id(words, token) for token in tokenizer.SPECIAL)
    return construction.construct(
        construction.config(words.get_vocab_size(), *ids), seed=0, mark=tokenizer.mark_id(words)
    )


def trained(words, folder: Path, stop_after: int | None = None):
    """The weights after all phases, or what is left of a run that dies."""
    torch.set_num_threads(1)
    model = new_model(words)

    def on_step(step: int, total: int, accuracy: float) -> None:
        if step == stop_after:
            raise KeyboardInterrupt

    loop.train(
        model,
        data.Data(words, seed=0),
        PHASES,
        learning_rate=2e-3,
        checkpoint=folder / "checkpoint.pt",
        save_every=2,
        on_step=on_step,
    )
    return model.state_dict()


def test_training_repeats_and_resumes_bit_by_bit(words, tmp_path):
    for name in ("once", "again", "killed"):
        (tmp_path / name).mkdir()
    once, again = trained(words, tmp_path / "once"), trained(words, tmp_path / "again")
    with pytest.raises(KeyboardInterrupt):
        trained(words, tmp_path / "killed", stop_after=3)
    resumed = trained(words, tmp_path / "killed")
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert all(torch.equal(once[name], resumed[name]) for name in once)


def test_first_weights_already_look_back_and_match(words):
    batch = data.Data(words, seed=0).batch(0, size=8, length=128, repeats=1.0)
    built, random = new_model(words), new_model(words)
    torch.manual_seed(1)
    for weight in random.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    with torch.no_grad():
        assert loop.loss_and_accuracy(built, batch)[1] > loop.loss_and_accuracy(random, batch)[1] + 0.02


def test_the_packaged_tokenizer_is_the_one_that_is_built(words):
    stored = json.loads((EMBEDDED / "tokenizer.json").read_text(encoding="utf-8"))
    assert stored["model"]["vocab"] == json.loads(words.to_str())["model"]["vocab"]


@settings(max_examples=150, derandomize=True, deadline=None)
@given(st.text())
def test_any_text_round_trips(text):
    assert packaged().decode(packaged().encode(text).ids) == text


def test_generated_words_and_short_numbers_are_single_tokens(words):
    rng = Random(0)
    name, value = vocabulary.key(rng), vocabulary.number(rng)
    assert len(words.encode(vocabulary.needle(name, value)).ids) == 14
    assert all(len(words.encode(f"{n:03d}").ids) == 1 for n in range(1000))
    assert {len(words.encode(f" {vocabulary.code(rng)}").ids) for _ in range(200)} == {1 + 16 + 4}  # bytes and hyphens
    assert {len(words.encode(vocabulary.letters(rng, 5)).ids) for _ in range(200)} == {3}


def test_every_question_of_a_training_document_is_answered_by_its_context(words):
    count = lambda text: len(words.encode(text).ids)  # noqa: E731
    for kind, room in product(documents.SHARES, (90, 400, 1500)):
        if room < documents.SHARES[kind][1]:
            continue
        seed = f"{kind.__name__}/{room}"
        context, asked = kind(Random(seed), room, count)
        pairs = list(asked)
        again, asked_again = kind(Random(seed), room, count)
        assert (context, pairs) == (again, list(asked_again))
        for text, answer in pairs[:20]:
            assert "\n" in text
            for part in re.findall(r"[0-9a-f]{8}-[0-9a-f-]+|\d{5,}|[A-Z]{3,}|[a-z]{3,}", answer):
                assert part in context or part == "is"


def test_all_values_of_a_key_are_the_answer_to_its_question(words):
    context, asked = documents.several_values(Random(3), 700, lambda text: len(words.encode(text).ids))
    for text, answer in asked:
        name = re.search(r"for (\S+) in the text", text).group(1)
        held = re.findall(rf"for {name} is: ([0-9a-f-]+)\.", context)
        assert len(held) > 1
        assert sorted(answer.split(",")) == sorted(vocabulary.item(name, value) for value in held)


def test_the_packaged_model_is_small_plain_and_right():
    from sahub.api import load_model

    assert sum(file.stat().st_size for file in EMBEDDED.iterdir()) <= 10e6
    assert json.loads((EMBEDDED / "config.json").read_text())["architectures"] == ["LlamaForCausalLM"]
    model = load_model("embedded")
    pairs = {"golden-lion": "1203344", "misty-hill": "3141592", "quiet-river": "4829174"}
    context = "\n".join(
        [vocabulary.instruction(), *(vocabulary.needle(*pair) for pair in pairs.items()), *[vocabulary.NOISE] * 9]
    )
    answers = [
        model.answer(
            context, vocabulary.question(name), answer_prefix=vocabulary.answer_prefix(name), max_new_tokens=8
        )[0]
        for name in pairs
    ]
    assert [answer.strip() for answer in answers] == list(pairs.values())
