"""ROUGE as Google's package `rouge-score` 0.1.2 counts it, without its stemmer: bags of n-grams, exact F.

Source   Lin 2004, aclanthology.org/W04-1013; behaviour of rouge-score 0.1.2 (tests hold this equal to it)
Differs  the longest common subsequence is found with bit vectors, so that an answer of a megabyte costs seconds

Letters and digits of ASCII are words, all else parts them: Chinese has none. `rouge` counts otherwise, see there.
"""

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import lru_cache

from sahub.scores.lcs import lcs_length, lcs_pairs

WORD = re.compile(r"[a-z0-9]+")


def rouge_n(prediction: str, reference: str, n: int) -> float:
    """F of the n-grams, each counted as often as it occurs on both sides."""
    grams = [
        Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (_words(prediction), _words(reference))
    ]
    return _f((grams[0] & grams[1]).total(), grams[0].total(), grams[1].total())


def rouge_l(prediction: str, reference: str) -> float:
    """F of the longest common subsequence of the whole texts."""
    words, expected = _words(prediction), _words(reference)
    return _f(lcs_length(expected, words), len(words), len(expected))


def rouge_lsum(prediction: str, reference: str) -> float:
    """F of the words in the union, per line of the reference, of its subsequences shared with each predicted line.

    A word counts at most as often as it occurs in the prediction and in the reference.
    """
    lines, expected = ([_words(line) for line in text.split("\n")] for text in (prediction, reference))
    left = [Counter(word for line in side for word in line) for side in (lines, expected)]
    sizes = [side.total() for side in left]
    distinct = list({tuple(line): None for line in lines})
    hits = 0
    for line in expected:
        for place in sorted(_union(line, distinct)):
            word = line[place]
            if left[0][word] and left[1][word]:
                hits += 1
                left[0][word] -= 1
                left[1][word] -= 1
    return _f(hits, *sizes)


def _union(line: Sequence[str], others: Iterable[Sequence[str]]) -> set[int]:
    """Places in the line of the words that it has in one longest common subsequence with each of the others."""
    places: dict[str, list[int]] = {}
    for place, word in enumerate(line):
        places.setdefault(word, []).append(place)
    found: set[int] = set()
    for other in others:
        # Words of the line that the other lacks are no step that could be chosen: leaving them out changes nothing.
        shared = sorted(place for word in places.keys() & set(other) for place in places[word])
        found.update(shared[place] for _, place in lcs_pairs(other, [line[place] for place in shared]))
    return found


@lru_cache(maxsize=4)  # the same answer is read by every metric, against every reference
def _words(text: str) -> tuple[str, ...]:
    return tuple(WORD.findall(text.lower()))


def _f(shared: int, predicted: int, expected: int) -> float:
    precision, recall = shared / max(predicted, 1), shared / max(expected, 1)
    return 2 * precision * recall / (precision + recall) if shared else 0.0
