"""InfiniteBench: the first number, the last word, a chosen option, a name, F1 or ROUGE-Lsum.

Source   OpenBMB/InfiniteBench src/compute_scores.py @88b3daa (model_name not gpt4)
Differs  a decimal where a whole number is expected scores 0 (officially an exception); labels may also be texts
kvpress  of a choice, the last letter that stands alone counts first; of a dialogue, any name inside the answer; a bug
         may be named at the very beginning; no summaries
"""

import re
from collections.abc import Sequence
from typing import Any

from sahub.scores.benchmark import Benchmark, Metrics, Row, best, each, mean, one_fits, texts
from sahub.scores.infinite_labels import choice, number, one_text, whole_number, whole_numbers
from sahub.scores.rouge_score import rouge_lsum
from sahub.scores.words import f1, f1_characters_zh

DIGITS, NUMBER = re.compile(r"[0-9]+"), re.compile(r"\d+\.\d+|\d+")
SPACES = re.compile(r" {2,}")
MARKS = str.maketrans(dict.fromkeys("\n:\"'.,?!{}", " "))
CHOICE_MARKS = str.maketrans(dict.fromkeys("\n\"'.,?!{}", " "))
CODE_MARKS = str.maketrans(dict.fromkeys("\n.`'\":", " "))
BUG_MARKS = str.maketrans(dict.fromkeys("\n`'\"-*", " "))
CHOICE_PREFIXES = ("answer is:", "answer:", "answer is", "option is")
BUG_PREFIXES = ("answer is:", "is:", "answer:", "correct option is:")


def first_number(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """passkey, number_string: 1 where the first run of ASCII digits is the expected text."""
    found = DIGITS.search(prediction)
    return float(found is not None and found[0] == one_text(references))


def value(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """kv_retrieval: 1 where the expected text is a word of the answer; quotes, braces and stops part words."""
    return float(one_text(references) in prediction.translate(MARKS).split())


def math_find(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the first number equals the expected one; its sign is not read."""
    expected = number(references)
    found = NUMBER.search(prediction)
    if not found:
        return 0.0
    if isinstance(expected, float):
        return float(float(found[0]) == expected)
    return float(_int(found[0]) == expected)


def math_calc(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """Expected numbers that the answer gives in order before the first mistake / expected numbers; no signs."""
    expected = whole_numbers(references)
    right = 0
    for one, found in zip(expected, DIGITS.finditer(prediction), strict=False):
        if _int(found[0]) != one:
            break
        right += 1
    return right / len(expected)


def code_run(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the last word is the expected int."""
    expected = whole_number(references)
    words = prediction.translate(CODE_MARKS).split()
    return float(bool(words) and _int(words[-1]) == expected)


def _int(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:  # also for thousands of digits
        return None


def code_debug(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the answer begins with the letter and a stop, or names letter or function after a known phrase.

    Officially one character after the phrase is skipped whatever it is, and a bare letter scores 0.
    """
    text, letter = choice(references)
    answer = prediction.strip()
    if answer[:2] in (f"{letter}.", f"{letter}:"):
        return 1.0
    return _after(BUG_PREFIXES, _bug_words(answer), (letter, text)) or 0.0


def code_debug_kvpress(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the last letter A-J that stands alone is the expected one, or letter or function begin the answer."""
    text, letter = choice(references)
    answer = prediction.strip()
    if _last_letter(answer, "A-J") == letter or _bug_words(answer).startswith((letter, text)):
        return 1.0
    return code_debug(prediction, references)


def _bug_words(answer: str) -> str:
    return SPACES.sub(" ", answer.translate(BUG_MARKS).replace("Option", " ").replace("option", " "))


def longbook_choice(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the letter that the answer begins with, names after a known phrase or names first is the expected one.

    Any word that begins with A to D counts as that letter at the very beginning ("Because"), as officially.
    """
    expected = choice(references)
    answer = prediction.strip()
    if answer[:1] in tuple("ABCD"):
        return float(answer[0] in expected)
    if answer in expected:
        return 1.0
    answer = SPACES.sub(" ", answer.translate(CHOICE_MARKS))
    named = _after(CHOICE_PREFIXES, answer, expected)
    if named is not None:
        return named
    letters = next((word for word in answer.split() if word in "ABCD"), "")
    return float(letters in expected)


def longbook_choice_kvpress(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the last lone letter A-D of the first line with one is the expected one; else as officially."""
    if _last_letter(prediction.strip(), "A-D") in choice(references):
        return 1.0
    return longbook_choice(prediction, references)


def _after(prefixes: Sequence[str], answer: str, expected: tuple[str, str]) -> float | None:
    """Whether what follows the first of the phrases that occurs, and one character, begins as expected; None: none."""
    for prefix in prefixes:
        if (place := answer.find(prefix)) >= 0:
            return float(answer.startswith(expected, place + len(prefix) + 1))
    return None


def _last_letter(answer: str, letters: str) -> str | None:
    for line in answer.split("\n"):
        if found := re.findall(rf"\b[{letters}]\b", line):
            return str(found[-1])
    return None


def dialogue(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where the first name is a word of the answer in capitals; a name of several words never is."""
    return float(texts(references)[0] in prediction.translate(MARKS).upper().split())


def dialogue_kvpress(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """1 where any of the names is inside the answer, ignoring case."""
    answer = prediction.strip().upper()
    return float(any(name.upper() in answer for name in texts(references)))


def aggregate(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> float:
    """Task score: the plain mean, in [0, 1], not rounded."""
    (metric,) = metrics.values()
    return mean(each(metric, rows, classes))


BENCHMARK = Benchmark(
    subsets={
        "passkey": {"accuracy": first_number},
        "number_string": {"accuracy": first_number},
        "kv_retrieval": {"accuracy": value},
        "longbook_sum_eng": {"rouge_lsum": best(rouge_lsum)},
        "longbook_choice_eng": {"accuracy": longbook_choice},
        "longbook_qa_eng": {"f1": best(f1)},
        "longbook_qa_chn": {"f1_zh": best(f1_characters_zh)},
        "longdialogue_qa_eng": {"accuracy": dialogue},
        "math_find": {"accuracy": math_find},
        "math_calc": {"accuracy": math_calc},
        "code_run": {"accuracy": code_run},
        "code_debug": {"accuracy": code_debug},
    },
    on_request={
        "longbook_sum_eng": {"kvpress": None},
        "longbook_choice_eng": {"kvpress": longbook_choice_kvpress},
        "longdialogue_qa_eng": {"kvpress": dialogue_kvpress},
        "code_debug": {"kvpress": code_debug_kvpress},
    },
    checks={
        "passkey": one_fits(DIGITS.fullmatch, "be one number in digits"),
        "number_string": one_fits(DIGITS.fullmatch, "be one number in digits"),
        "kv_retrieval": one_fits(lambda text: text.translate(MARKS).split() == [text], "be one word without marks"),
    },
    aggregate=aggregate,
)
