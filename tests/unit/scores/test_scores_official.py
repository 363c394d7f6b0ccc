"""The rules of the benchmarks' scorers against slow references written from the rules, and labels of every shape."""

from collections import Counter
from contextlib import suppress
from difflib import SequenceMatcher
from itertools import combinations
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from sahub.errors import ConfigError, SahubError, ScoreError
from sahub.scores import BENCHMARKS, aggregate, headline, metrics_of, primary_metric, rouge_score, score, words
from sahub.scores.infinite_labels import repair_label

often = settings(derandomize=True, max_examples=150, deadline=None)


def text_of(*atoms: str, most: int = 25) -> st.SearchStrategy[str]:
    return st.lists(st.sampled_from(atoms), max_size=most).map("".join)


TASKS = [f"{name}/{subset}" for name, benchmark in BENCHMARKS.items() for subset in benchmark.subsets]
LABELS = ["ab", "b", "abc", "c d", "c", "d", "a"]
SUM = text_of("a ", "b ", "C ", "d, ", "e ", "\n", "\n\n", "é ", most=40)
QUESTION = "Which one?\nA. not this\nB. the mule\nC. load_cfg\nover two lines\nD. none"
REFERENCES: dict[str, Any] = {
    "math_find": 88, "math_calc": [7, 8], "code_run": -7, "code_debug": ["load_cfg", "B"],
    "longbook_choice_eng": ["the mule", "C"], "shortdep_cloze": {"<mask-0>": "x"}, "0shot": ["A"], "cot": ["A"],
    "passage_retrieval_en": ["Paragraph 7"], "passage_retrieval_zh": ["段落7"], "quality": ["B"],
    "book_sum_sort": ["2, 1, 3"],
}  # fmt: skip


def references_of(task: str) -> Any:
    return REFERENCES.get(task.split("/")[1], ["A long way, 北京的路。", "7"])


# --- the rules


@given(SUM, SUM)
@often
def test_rouge_score_is_that_of_the_package(prediction: str, reference: str) -> None:
    expected = RougeScorer(["rouge1", "rouge2", "rougeL", "rougeLsum"]).score(reference, prediction)
    found = {
        "rouge1": rouge_score.rouge_n(prediction, reference, 1),
        "rouge2": rouge_score.rouge_n(prediction, reference, 2),
        "rougeL": rouge_score.rouge_l(prediction, reference),
        "rougeLsum": rouge_score.rouge_lsum(prediction, reference),
    }
    assert found == pytest.approx({name: one.fmeasure for name, one in expected.items()})


@given(text_of("a", "b", "c", " d", "\n", most=8), st.sampled_from(LABELS), st.permutations(LABELS), st.integers(1, 7))
@often
def test_labels_are_dropped_while_they_are_walked(prediction: str, gold: str, labels: list[str], most: int) -> None:
    named = [label for label in labels[:most] if label in prediction.lstrip("\n").split("\n")[0]]
    for label in named:
        if label in gold and label != gold:
            named.remove(label)
    expected = 1 / len(named) if gold in named else 0
    assert score("longbench/trec", prediction, [gold], classes=labels[:most]) == expected


@given(
    text_of(*"abcde()= ,", "return ", "self.", "#", "//", "`", "\n", most=300),
    text_of(*"abcde()= ,", "return ", "self.", most=300),
)
@often
def test_code_is_compared_by_difflib_with_its_heuristic(prediction: str, reference: str) -> None:
    lines = prediction.lstrip("\n").split("\n")
    line = ([line for line in lines if not any(mark in line for mark in ("`", "#", "//"))] or [""])[0]
    expected = round(100 * SequenceMatcher(None, line, reference).ratio()) / 100 if line and reference else 0
    assert score("longbench/lcc", prediction, [reference]) == (1 if line == reference else expected)


@pytest.mark.parametrize("length", [397, 398, 399, 400, 597, 598, 599, 600])
def test_lines_that_are_far_too_long_score_as_difflib_says(length: int) -> None:
    for reference in ("x", "xy"):
        line = "x" + "z" * length
        expected = round(100 * SequenceMatcher(None, line, reference).ratio()) / 100
        assert score("longbench/lcc", line, [reference]) == expected


@given(st.permutations(range(1, 7)), st.permutations(range(1, 7)))
@often
def test_an_order_scores_the_share_of_pairs_that_it_keeps(found: list[int], expected: list[int]) -> None:
    pairs = list(combinations(expected, 2))
    right = sum(found.index(one) < found.index(other) for one, other in pairs)
    answer = " > ".join(map(str, found))
    assert score("zero_scrolls/book_sum_sort", answer, ", ".join(map(str, expected))) == right / len(pairs)
    assert score("zero_scrolls/book_sum_sort", answer + ", 7", ", ".join(map(str, expected))) == 0


@given(text_of("the ", "cat ", "Cat. ", "a-", "1.5 ", "\n"), text_of("the ", "cat ", "dog ", "a-", "1.5 "))
@often
def test_f1_is_that_of_the_bags_of_normal_words(prediction: str, reference: str) -> None:
    def bag(text: str) -> Counter[str]:
        kept = "".join(c for c in text.lower() if c not in "-.")
        return Counter(word for word in kept.split() if word not in ("a", "an", "the"))

    one, other = bag(prediction), bag(reference)
    shared = sum(min(one[word], other[word]) for word in one)
    expected = 2 * shared / (one.total() + other.total()) if shared else 0
    for task in ("longbench/qasper", "infinite_bench/longbook_qa_eng", "zero_scrolls/qasper"):
        assert score(task, prediction, [reference]) == pytest.approx(expected)


def test_chinese_punctuation_is_the_official_set() -> None:
    # The opening double and the two single angle brackets are kept, the closing double one is not.
    assert words.normalize_zh("《〈〉》\uff0c。\uff01 \uff22\u3000b") == "《〈〉\uff42b"
    assert [code for code in range(0x3000, 0x3020) if chr(code) in words.normalize_zh(chr(code))] == [
        0x3004, 0x3005, 0x3006, 0x3007, 0x3008, 0x3009, 0x300A, 0x3012, 0x3013,
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("task", "prediction", "references", "expected"),
    [
        ("code_debug", "correct option is: B", ["f", "B"], 1),
        ("code_debug", "answer: x. The answer is: B", ["f", "B"], 1),  # phrases in their own order, not the text's
        ("code_debug", "the answer is: A, answer: B", ["f", "B"], 0),  # the first phrase decides
        ("code_debug", "it is: *B*", ["f", "B"], 1),  # the space that the asterisk left melts into the other
        ("longbook_choice_eng", "Answer: C", ["mule", "C"], 0),
        ("longbook_choice_eng", "the answer is: C", ["mule", "C"], 1),
        ("longbook_choice_eng", "my option is mule", ["mule", "C"], 1),
        ("longbook_choice_eng", "it says AB then C", ["mule", "C"], 0),
        ("longdialogue_qa_eng", "ace/", ["ACE"], 0),
        ("math_find", "88.5", 88, 0),
        ("math_find", "4.0", 4.0, 1),
        ("math_calc", "7" * 5000, [7], 0),
        ("code_run", "9" * 5000, 9, 0),
        ("code_run", "it is 1_0", 10, 1),
    ],
)
def test_infinite_bench_by_hand(task: str, prediction: str, references: Any, expected: float) -> None:
    assert score(f"infinite_bench/{task}", prediction, references) == expected


@pytest.mark.parametrize(
    ("prediction", "expected"),
    [("1.62.5%", 0.5), ("6.2%%", 0.5 ** (66.3 / 10)), ("72.5 %, 52.5%", 0.25), ("7" * 400 + "%", 0)],
)
def test_percentages_by_hand(prediction: str, expected: float) -> None:
    assert score("zero_scrolls/space_digest", prediction, "72.5%") == pytest.approx(expected)


def test_accents_are_folded_after_articles_went() -> None:
    assert score("zero_scrolls/qasper", "À la carte", ["a la carte"]) == pytest.approx(0.8)
    assert score("zero_scrolls/musique", "2\xbd miles", ["2 miles"]) == pytest.approx(0.8)
    assert score("zero_scrolls/musique", "3\xd74 \u2014", ["3x4 \u2013"]) == 0.5


# --- labels, metrics and data of every shape


@pytest.mark.parametrize(
    ("task", "answer", "label"),
    [
        ("passkey", ["01234"], "01234"),
        ("kv_retrieval", np.array(["ab-c"], dtype=object), "ab-c"),
        ("code_run", ["-7"], -7),
        ("code_run", np.array([np.int64(24)]), 24),
        ("math_find", ["88"], 88),
        ("math_find", ["49.0"], 49.0),
        ("math_find", np.float64(49.5), 49.5),
        ("math_calc", ["[7, 8]"], [7, 8]),
        ("math_calc", "[7, 8]", [7, 8]),
        ("math_calc", [[7, 8]], [7, 8]),
        ("math_calc", np.array(["7", "8"]), [7, 8]),
        ("code_debug", ["C"], ["load_cfg\nover two lines", "C"]),
        ("longbook_choice_eng", np.array(["B"], dtype=object), ["the mule", "B"]),
        ("longbook_choice_eng", ["the mule"], ["the mule", "B"]),
        ("longbook_choice_eng", ["the mule", "B"], ["the mule", "B"]),
        ("longdialogue_qa_eng", np.array(["ACE", "ACE H"]), ["ACE", "ACE H"]),
        ("longbook_sum_eng", "A summary.", ["A summary."]),
    ],
)
def test_labels_are_repaired(task: str, answer: Any, label: Any) -> None:
    found = repair_label(task, answer, QUESTION)
    assert found == label
    assert type(found) is type(label)
    assert repair_label(task, found, QUESTION) == found
    as_texts = tuple(map(str, found if isinstance(found, list) else [found]))  # as questions hold references
    prediction = "7, 8" if task == "math_calc" else f"the answer is: {as_texts[-1]}"
    assert score(f"infinite_bench/{task}", prediction, found) == score(f"infinite_bench/{task}", prediction, as_texts)


@pytest.mark.parametrize("answer", [None, float("nan"), [], [None], {}, True, b"x", [["x"]], ["E"], ["", "A"], "huge"])
def test_labels_that_cannot_be_repaired_are_named(answer: Any) -> None:
    tasks = ("passkey", "code_run", "math_find", "math_calc", "code_debug")
    answer, tasks = (10**5000, ("passkey", "code_debug")) if answer == "huge" else (answer, tasks)
    for task in tasks if answer != ["E"] else tasks[1:]:
        with pytest.raises(ScoreError, match=r"(references|answer)="):
            repair_label(task, answer, QUESTION)
    with pytest.raises(ScoreError, match="must be a letter, or the text, of one of the options"):
        repair_label("code_debug", ["A"], "no options here")


ODD = [
    None,
    float("nan"),
    np.nan,
    [],
    [None],
    [np.nan],
    {"a": 1},
    3,
    True,
    b"x",
    [b"x"],
    ["x", 3],
    np.array([]),
    object(),
]


@pytest.mark.parametrize("task", TASKS)
@pytest.mark.parametrize("metric", [None, "kvpress"])
def test_odd_labels_give_a_score_or_a_named_error(task: str, metric: str | None) -> None:
    for references in [*ODD, "\ud800", ["\ud800\x00"]]:
        for prediction in ("7 (B) Paragraph 7 62%, {'a': 1}", "", "\ud800\x00İ"):
            with suppress(ScoreError, ConfigError):
                assert 0 <= score(task, prediction, references, classes=["\ud800", "B"], metric=metric) <= 1


@pytest.mark.parametrize("task", TASKS)
def test_every_task_scores_and_sums_up(task: str) -> None:
    row = {"references": references_of(task), "length": 5000, "difficulty": "easy", "all_classes": np.array(["7"])}
    if task.startswith("longbench_v2"):
        row["length"] = "short"
    assert primary_metric(task) == metrics_of(task)[0]
    for metric in metrics_of(task):
        assert 0 <= score(task, "7", references_of(task), classes=("7",), metric=metric) <= 1
    assert aggregate(task, [{**row, "prediction": "7"}, {**row, "prediction": np.str_("A")}]) is not None
    with pytest.raises(ScoreError, match="at least one row"):
        aggregate(task, [])
    with pytest.raises(ScoreError, match=r"rows\[1\]: "):
        aggregate(task, [{**row, "prediction": "7"}, {**row, "prediction": "7", "references": None}])


@pytest.mark.parametrize("value", [None, "x", float("nan"), True])
def test_rows_without_what_their_benchmark_groups_by_are_named(value: Any) -> None:
    row = {"prediction": "x", "references": ["A"], "difficulty": "easy"}
    for task in ("longbench_e/qasper", "longbench_v2/0shot"):
        with pytest.raises(ScoreError, match=r"rows\[0\]: length="):
            aggregate(task, [row | ({} if value is None else {"length": value})])
    with pytest.raises(ScoreError, match="classes=None: must be the labels"):
        score("longbench/trec", "x", ["x"])


def test_an_empty_group_has_no_number() -> None:
    row = {"prediction": "The correct answer is A", "references": ["A"], "difficulty": "easy", "length": "short"}
    found = aggregate("longbench_v2/cot", [row])
    assert isinstance(found, dict)
    assert [name for name, one in found.items() if one != one] == ["Hard", "Medium", "Long"]
    buckets = aggregate("longbench_e/qasper", [{"prediction": "x", "references": ["x"], "length": 8000}])
    assert isinstance(buckets, dict)
    assert [name for name, one in buckets.items() if one != one] == ["0-4k", "4-8k"]


def test_one_metric_can_be_asked_of_a_data_set() -> None:
    rows = [{"prediction": "a b", "references": ["a b"]}]
    assert aggregate("zero_scrolls/qmsum", rows, metric="rouge2") == 100
    assert aggregate("zero_scrolls/qmsum", rows, metric="geometric_mean") == pytest.approx(100)
    assert aggregate("loogle/longdep_qa", rows, metric="bleu1") == {"bleu1": 1}
    assert aggregate("ruler/vt", [{"prediction": "1\n2", "references": ["12"]}], metric="kvpress") == 100


# --- answers of a megabyte


MEGABYTES = {
    "words": " ".join(f"w{i % 9973}" for i in range(170_000)),
    "lines": "".join(f"b a {i}\n" for i in range(60_000)),
    "digits": "7" * 1_000_000,
    "percents": "1.1" * 333_333,
    "letters": "A " * 500_000,
    "pairs": "aabb" * 250_000,
    "phrases": "is:" * 333_333,
}


@pytest.mark.parametrize("answer", MEGABYTES.values(), ids=MEGABYTES)
@pytest.mark.parametrize(
    "task",
    ["longbench/lcc", "longbench/trec", "longbench/gov_report", "infinite_bench/code_debug",
     "infinite_bench/longbook_choice_eng", "infinite_bench/longbook_sum_eng", "infinite_bench/math_find",
     "infinite_bench/math_calc", "zero_scrolls/gov_report", "zero_scrolls/space_digest", "zero_scrolls/book_sum_sort"],
)  # fmt: skip
@pytest.mark.slow
def test_an_answer_of_a_megabyte_is_scored_in_seconds(task: str, answer: str) -> None:
    assert 0 <= score(task, answer, references_of(task), classes=["A", "B"]) <= 1


def test_what_would_take_minutes_is_a_named_error() -> None:
    with pytest.raises(ScoreError, match="10000 Chinese characters in a row or more"):
        score("longbench/dureader", "龘" * 10_000, ["北京"])
    with pytest.raises(ScoreError, match="a line of 50000 characters is too long to compare with one of 190"):
        score("longbench/lcc", "ab" * 25_000, ["ab" * 95])


# --- libraries that may be missing


@pytest.mark.parametrize(
    ("module", "task", "metric", "message"),
    [
        ("jieba", "longbench/dureader", None, "pip install jieba"),
        ("anyascii", "zero_scrolls/qasper", None, "pip install anyascii"),
        ("bert_score", "loogle/longdep_qa", "bert_score", r"pip install 'sahub\[bertscore\]'"),
    ],
)
def test_a_missing_library_is_named(
    monkeypatch: pytest.MonkeyPatch, module: str, task: str, metric: str | None, message: str
) -> None:
    monkeypatch.setitem(__import__("sys").modules, module, None)
    words._cutter.cache_clear()
    try:
        with pytest.raises(ScoreError, match=message):
            score(task, "é", ["é"], metric=metric)
    finally:
        words._cutter.cache_clear()


def test_bert_score_takes_the_recall_of_swapped_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    def scored(candidates: list[str], references: list[str]) -> tuple[list[float], ...]:
        assert (candidates, references) == (["gold"], ["mine?"])
        return [0.1], [0.2], [0.3]

    monkeypatch.setattr("sahub.scores.loogle._scorer", lambda: SimpleNamespace(score=scored))
    assert score("loogle/shortdep_qa", "mine\ud800", ["gold"], metric="bert_score") == 0.2


# --- one number per benchmark


def test_longbench_has_category_means_and_the_averages_of_its_paper() -> None:
    numbers = {subset: float(place) for place, subset in enumerate(BENCHMARKS["longbench"].subsets)}
    found = headline("longbench", numbers)
    assert found.value == sum(numbers.values()) / 21
    assert found.columns["English code"] == (numbers["lcc"] + numbers["repobench-p"]) / 2
    assert found.columns["English average"] == pytest.approx(
        ((0 + 1 + 2) / 3 + (4 + 5 + 6) / 3 + (8 + 9 + 10) / 3 + (12 + 13 + 14) / 3 + (16 + 17) / 2 + (19 + 20) / 2) / 6
    )
    assert found.columns["Chinese average"] == pytest.approx((3 + 7 + 11 + 15 + 18 + 19.5) / 6)
    del numbers["vcsum"]
    found = headline("longbench", numbers)
    assert "Chinese average" not in found.columns
    assert "English average" in found.columns
    assert found.missing == ("vcsum",)


def test_headlines_of_the_other_benchmarks() -> None:
    nan = float("nan")
    e = headline(
        "longbench_e", {"qasper": {"0-4k": 10, "4-8k": 20, "8k+": nan}, "trec": {"0-4k": 30, "4-8k": 40, "8k+": 90}}
    )
    assert (e.columns["0-4k"], e.columns["4-8k"], e.columns["8k+"], e.value) == (20, 30, 90, pytest.approx(140 / 3))
    assert headline("longbench_v2", {"0shot": {"Overall": 60.0, "Easy": 50.0}}).value == 60
    cloze = {"exact_match": 0.5, "partial_match": 1.0}
    loogle = headline("loogle", {"shortdep_cloze": cloze, "longdep_qa": {"rouge-l-recall": 0.25, "bleu1": 0.75}})
    assert (loogle.value, loogle.columns["longdep_qa bleu1"]) == (0.375, 0.75)
    scrolls = headline("zero_scrolls", {"qmsum": {"rouge1": 40, "geometric_mean": 20}, "quality": 60})
    assert (scrolls.value, len(scrolls.missing)) == (40, 8)
    assert headline("ruler", {"vt": 50.0, "cwe": 100.0}).value == 75
    empty = headline("infinite_bench", {})
    assert empty.value != empty.value
    for wrong in ({"vtt": 1.0}, {"vt": 1.0, "x": 2.0}):
        with pytest.raises(SahubError, match="task=ruler/"):
            headline("ruler", wrong)
    with pytest.raises(ConfigError, match="benchmark=rular: must be one of"):
        headline("rular", {})
