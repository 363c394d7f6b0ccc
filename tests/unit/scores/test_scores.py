"""What scores promise beside the official vectors: names, errors, shapes, and answers of any size."""

import time
from functools import cache
from random import Random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sahub.errors import ConfigError, ScoreError
from sahub.scores import aggregate, metrics_of, rouge, score

QA = "loogle/shortdep_qa"


def slow_lcs_words(x: tuple[str, ...], y: tuple[str, ...]) -> set[str]:
    """The textbook table, walked back from the end; on a tie back in y."""

    @cache
    def length(i: int, j: int) -> int:
        if not i or not j:
            return 0
        return length(i - 1, j - 1) + 1 if x[i - 1] == y[j - 1] else max(length(i - 1, j), length(i, j - 1))

    i, j, words = len(x), len(y), set()
    while i and j:
        if x[i - 1] == y[j - 1]:
            words.add(x[i - 1])
            i, j = i - 1, j - 1
        elif length(i - 1, j) > length(i, j - 1):
            i -= 1
        else:
            j -= 1
    return words


def test_rouge_l_equals_the_union_of_slow_tables() -> None:
    rng = Random(0)

    def text() -> str:
        return " ".join(rng.choice(["a", "b", "c", "d.", "e", "f."]) for _ in range(rng.randint(1, 25)))

    for _ in range(300):
        x, y = text(), text()
        sides = [[tuple(piece.split()) or ("",) for piece in t.split(".") if piece] for t in (x, y)]
        union = {word for h in sides[0] for r in sides[1] for word in slow_lcs_words(r, h)}
        counts = [len({word for sentence in side for word in sentence}) for side in sides]
        assert rouge.rouge_l(x, y) == rouge.Rouge(len(union) / counts[0], len(union) / counts[1])


@pytest.mark.parametrize(
    ("prediction", "reference", "recall"),
    [
        ("the cat, the dog", "The dog and the cat", 0.2),
        ("Costs rose. Staff fell.", "Staff fell. Costs rose sharply.", 4 / 5),
        ("ok ok ok", "ok", 1.0),
        ("...", "a", 0.0),
        ("a", "...", 0.0),
    ],
)
def test_rouge_l_recall_by_hand(prediction: str, reference: str, recall: float) -> None:
    assert score(QA, prediction, [reference]) == pytest.approx(recall)


def test_meteor_by_hand() -> None:
    # Sorted tokens cats|sat|the and cat|mat|sat|the match (cats and cat by their stem) in two chunks: P = 1, R = 3/4.
    expected = 0.75 / 0.975 * (1 - 0.5 * (2 / 3) ** 3)
    assert score(QA, "the cats sat", ["the cat sat mat"], metric="meteor") == pytest.approx(expected)


def test_the_best_of_several_references_counts() -> None:
    assert score(QA, "in Porto", ["Lisbon", "in Porto"]) == 1.0


def test_references_may_be_a_text_a_list_or_an_array() -> None:
    shapes: list[Any] = ["Porto", ["Porto"], ("Porto",), np.array(["Porto"], dtype=object)]
    assert {score("ruler/qa_1", "Porto!", references) for references in shapes} == {1.0}


def test_cloze_masks_may_be_json_text() -> None:
    text = '{"<mask-0>": "Ada Brun", "<mask-1>": "Bo"}'
    assert score("loogle/shortdep_cloze", "{'<mask-0>': 'Ada', '<mask-1>': 'Bo'}", (text,)) == 0.5
    assert score("loogle/shortdep_cloze", "{'<mask-0>': 'Ada'}", [text], metric="partial_match") == 0.5


@pytest.mark.parametrize("answer", ["{'<mask-0>': 1}", "{'<mask-0>': ['1']}", "{[]: 1}", "__import__('os')", "{1: 2"])
def test_cloze_answers_that_are_not_texts_match_nothing(answer: str) -> None:
    for metric in ("exact_match", "partial_match"):
        assert score("loogle/shortdep_cloze", answer, {"<mask-0>": "1"}, metric=metric) == 0.0


def test_aggregate_of_answers_gives_every_metric() -> None:
    rows = [{"prediction": "in Porto", "references": ["Porto"]}, {"prediction": "", "references": ["Lisbon"]}]
    found = aggregate(QA, rows)
    assert isinstance(found, dict)
    assert tuple(found) == metrics_of(QA)
    assert found["rouge-l-recall"] == 0.5


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            "rular/vt",
            r"task=rular/vt: benchmark must be one of infinite_bench, .*ruler, zero_scrolls \(did you mean ruler\?\)",
        ),
        ("ruler/vtt", r"task=ruler/vtt: must be one of .*ruler/vt.*did you mean ruler/vt\?"),
        ("ruler", "task=ruler: must be one of ruler/niah_single_1"),
    ],
)
def test_unknown_tasks_name_the_choices(task: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        score(task, "x", ["x"])
    with pytest.raises(ConfigError, match=message):
        aggregate(task, [])


def test_an_unknown_metric_names_the_choices() -> None:
    with pytest.raises(
        ConfigError, match=r"metric=rouge-l: must be one of rouge-l-recall, .*did you mean rouge-l-recall"
    ):
        score(QA, "x", ["x"], metric="rouge-l")


@pytest.mark.parametrize("references", [[], None, [3], {"a": "b"}])
def test_references_that_are_no_texts_are_an_error(references: Any) -> None:
    for task in (QA, "ruler/vt"):
        with pytest.raises(ScoreError, match="references="):
            score(task, "x", references)


def test_rows_that_cannot_be_scored_are_an_error() -> None:
    for task in (QA, "ruler/vt", "loogle/shortdep_cloze"):
        with pytest.raises(ScoreError, match="at least one row"):
            aggregate(task, [])
    with pytest.raises(ScoreError, match=r"rows\[0\]: must have references"):
        aggregate(QA, [{"prediction": "x"}])
    with pytest.raises(ScoreError, match="prediction is a NoneType: must be text"):
        aggregate(QA, [{"prediction": None, "references": ["x"]}])
    for masks in ("no json", "{}", "[1]"):
        with pytest.raises(ScoreError, match="references="):
            score("loogle/shortdep_cloze", "{}", masks)


@given(st.text(), st.text(min_size=1))
@settings(derandomize=True, max_examples=60, deadline=None)
def test_any_text_has_a_score(prediction: str, reference: str) -> None:
    for metric in metrics_of(QA):
        assert 0 <= score(QA, prediction, [reference], metric=metric) <= 1
    for metric in metrics_of("loogle/shortdep_cloze"):
        assert score("loogle/shortdep_cloze", prediction, {"<mask-0>": reference}, metric=metric) in (0, 1)
    assert score("ruler/niah_single_1", prediction + reference.strip(), [reference.strip()]) in (0, 1)


@pytest.mark.parametrize(
    "answer",
    [
        " ".join(f"w{i % 9973}" for i in range(170_000)),
        "".join(f"b a {i}." for i in range(100_000)),
        "." * 1_000_000,
        "y" * 1_000_000,
        "[" * 90_000,
        "\ud800\x00İ" * 1000,
    ],
    ids=["words", "sentences", "stops", "letter", "brackets", "odd"],
)
def test_long_and_odd_answers_cost_seconds(answer: str) -> None:
    reference = "It was a long way. " + " ".join(f"w{i}" for i in range(1000))
    start = time.process_time()
    for metric in ("rouge-l-recall", "rouge-1-recall", "rouge-2-recall", "bleu1", "bleu4", "meteor"):
        score(QA, answer, [reference], metric=metric)
    score("loogle/shortdep_cloze", answer, {"<mask-0>": "x"})
    score("ruler/vt", answer, [reference])
    assert time.process_time() - start < 20
