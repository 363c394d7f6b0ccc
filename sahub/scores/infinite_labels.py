"""The labels of InfiniteBench in their official shapes, from the texts that mirrors of the data made of them.

Officially a label is a text (passkey, number_string, kv_retrieval), an int (code_run), an int or a float (math_find), a
list of ints (math_calc), [text of the right option, its letter] (code_debug, longbook_choice_eng), else texts. The
mirror MaxJeblick/InfiniteBench keeps lists of texts, and of a choice the letter alone.
"""

import json
import math
import re
from typing import Any

from sahub.errors import ScoreError
from sahub.scores.benchmark import plain, short, texts

LETTERS = "ABCD"
ONE_TEXT = ("passkey", "number_string", "kv_retrieval")
CHOICES = ("code_debug", "longbook_choice_eng")
# The last four lines, or runs of lines, that begin with a letter each.
OPTIONS = re.compile(r"(?s:.*)^A\. (?s:(.*?))^B\. (?s:(.*?))^C\. (?s:(.*?))^D\. (?s:(.*))\Z", re.MULTILINE)


def repair_label(task: str, answer: Any, question: str = "") -> Any:
    """The official label of a row; `task` is the subset's name, `question` ends with the options of a choice.

    Labels of the official shape come back as they are. Raises ScoreError for anything else, with what is wrong.
    """
    if task in ONE_TEXT:
        return one_text(answer)
    if task == "code_run":
        return whole_number(answer)
    if task == "math_find":
        return number(answer)
    if task == "math_calc":
        return whole_numbers(answer)
    if task in CHOICES:
        return _with_text(answer, question)
    return list(texts(plain(answer)))


def one_text(label: Any) -> str:
    """The first text of a label. Raises ScoreError where it is empty."""
    found = texts(plain(label))[0]
    if not found.strip():
        raise ScoreError(f"references={short(label)}: must be a text that is not empty")
    return found


def number(label: Any) -> int | float:
    """An int, or a float where the text has a point. Raises ScoreError for what is no finite number."""
    found = _only(plain(label))
    if isinstance(found, str):
        try:
            found = float(found) if "." in found else int(found)
        except ValueError:
            found = None
    if isinstance(found, int) and not isinstance(found, bool):
        return found
    if isinstance(found, float) and math.isfinite(found):
        return found
    raise ScoreError(f"references={short(label)}: must be a number")


def whole_number(label: Any) -> int:
    """An int. Raises ScoreError for anything else."""
    found = number(label)
    if found != int(found):
        raise ScoreError(f"references={short(label)}: must be a whole number")
    return int(found)


def whole_numbers(label: Any) -> list[int]:
    """Ints in a list, a list in a list, or one text in brackets. Raises ScoreError for anything else, and for none."""
    value = _only(plain(label))
    if isinstance(value, str) and value.lstrip().startswith("["):
        try:
            value = _only(json.loads(value))
        except (ValueError, RecursionError):
            raise ScoreError(f"references={short(label)}: must be whole numbers in brackets") from None
    found = value if isinstance(value, list | tuple) else [value]
    if not found:
        raise ScoreError(f"references={short(label)}: must be at least one number")
    return [whole_number(one) for one in found]


def choice(label: Any) -> tuple[str, str]:
    """(text of the right option, its letter). Raises ScoreError for a label without one of the two."""
    found = texts(plain(label))
    if len(found) != 2 or not found[0] or len(found[1]) != 1 or not "A" <= found[1] <= "Z":
        raise ScoreError(
            f"references={short(label)}: must be the right option's text and its letter, as [text, letter]"
        )
    return found[0], found[1]


def _only(value: Any) -> Any:
    """What stands alone in a list."""
    return value[0] if isinstance(value, list | tuple) and len(value) == 1 else value


def _with_text(answer: Any, question: str) -> list[str]:
    found = texts(plain(answer))
    if len(found) == 2:
        return list(choice(found))
    options = _options(question)
    if found[0] in options:
        return [options[found[0]], found[0]]
    letter = next((letter for letter, text in options.items() if text == found[0].strip()), None)
    if letter is None:
        raise ScoreError(
            f"answer={short(answer)}: must be a letter, or the text, of one of the options A. to D. that end the "
            f"question; it ends with {short(question[-60:])}"
        )
    return [found[0].strip(), letter]


def _options(question: str) -> dict[str, str]:
    found = OPTIONS.match(question)
    return dict(zip(LETTERS, map(str.strip, found.groups()), strict=True)) if found else {}
