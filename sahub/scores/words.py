"""How answers are cut into tokens and compared as bags of them: shared by the benchmarks of questions and answers."""

import logging
import re
import string
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from functools import cache

from sahub.errors import ScoreError

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = dict.fromkeys(map(ord, string.punctuation))
# Ranges of code points, both ends included. The opening U+3008 to U+300A are not among them, as officially.
CHINESE = (
    (0x2013, 0x2014), (0x2018, 0x2019), (0x201B, 0x201F), (0x2026, 0x2027), (0x3001, 0x3003), (0x300B, 0x3011),
    (0x3014, 0x301F), (0x3030, 0x3030), (0x303E, 0x303F), (0xFE4F, 0xFE4F), (0xFF01, 0xFF0D), (0xFF0F, 0xFF0F),
    (0xFF1A, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF64),
)  # fmt: skip
PUNCTUATION_ZH = PUNCTUATION | dict.fromkeys(code for low, high in CHINESE for code in range(low, high + 1))
# jieba's model of unknown words takes time with the square of a run of Chinese characters that nothing interrupts.
MAX_RUN = 10_000
RUN = re.compile(rf"[\u4e00-\u9fd5]{{{MAX_RUN}}}")


def normalize(text: str) -> str:
    """Lower case without ASCII punctuation (words may fuse), articles and surplus white space."""
    return " ".join(ARTICLES.sub(" ", text.lower().translate(PUNCTUATION)).split())


def normalize_zh(text: str) -> str:
    """Lower case without ASCII and Chinese punctuation and without white space."""
    return "".join(text.lower().translate(PUNCTUATION_ZH).split())


def bag_f1(prediction: Sequence[str], reference: Sequence[str]) -> float:
    """F1 of two bags of tokens, each token counted as often as it occurs on both sides; 0 where they share none."""
    shared = (Counter(prediction) & Counter(reference)).total()
    if not shared:
        return 0.0
    precision, recall = shared / len(prediction), shared / len(reference)
    return 2 * precision * recall / (precision + recall)


def f1(prediction: str, reference: str) -> float:
    """F1 of the normalised words, as in SQuAD."""
    return bag_f1(normalize(prediction).split(), normalize(reference).split())


def f1_characters_zh(prediction: str, reference: str) -> float:
    """F1 of the normalised Chinese text, a character a token."""
    return bag_f1(normalize_zh(prediction), normalize_zh(reference))


def f1_zh(prediction: str, reference: str) -> float:
    """F1 of the words that jieba cuts the raw text into, each normalised, empty ones left out."""
    sides = [[word for word in map(normalize_zh, cut_zh(text)) if word] for text in (prediction, reference)]
    return bag_f1(*sides)


def cut_zh(text: str) -> list[str]:
    """Chinese words (jieba's precise mode).

    Raises ScoreError where jieba is not installed, and for a text with MAX_RUN Chinese characters in a row.
    """
    if RUN.search(text):
        raise ScoreError(f"a text has {MAX_RUN} Chinese characters in a row or more: too long to be cut into words")
    return _cutter()(text)


@cache
def _cutter() -> Callable[[str], list[str]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about escapes in its source
        try:
            import jieba  # only scores that need it pay for it
        except ImportError:
            raise ScoreError("Chinese answers are cut into words by jieba, not installed: pip install jieba") from None
    jieba.setLogLevel(logging.WARNING)
    cutter: Callable[[str], list[str]] = jieba.Tokenizer().lcut  # our own: words that others add to theirs do not count
    return cutter
