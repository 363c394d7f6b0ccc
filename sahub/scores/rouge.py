"""ROUGE as the PyPI package `rouge` 1.0.1 counts it: sets of words and n-grams, sentences split at every full stop.

Source   Lin 2004, aclanthology.org/W04-1013; behaviour of rouge 1.0.1
Differs  the longest common subsequence is walked back without recursion, so long texts cost no RecursionError (which
         LongBench counts as 0); ROUGE-L reads the first MAX_WORDS words
"""

from dataclasses import dataclass

from sahub.scores.lcs import lcs_pairs

MAX_WORDS = 10_000  # per text: bounds ROUGE-L to seconds; the answer budgets it is used with are ten times smaller


@dataclass(frozen=True)
class Rouge:
    """Precision, recall and F of one comparison, each in [0, 1]."""

    precision: float
    recall: float

    @property
    def f(self) -> float:
        """2pr / (p + r + 1e-8): identical texts give 0.999999995."""
        return 2 * self.precision * self.recall / (self.precision + self.recall + 1e-8)


NOTHING = Rouge(0.0, 0.0)


def rouge_n(prediction: str, reference: str, n: int) -> Rouge:
    """Overlap of the sets of n-grams, which run across sentences; 0 where a text has no sentence."""
    grams = [_grams(_sentences(text, len(text)), n) for text in (prediction, reference)]
    both = len(grams[0] & grams[1])
    return Rouge(both / max(1, len(grams[0])), both / max(1, len(grams[1])))


def rouge_l(prediction: str, reference: str) -> Rouge:
    """Summary-level ROUGE-L: the distinct words that some pair of sentences has in its longest common subsequence.

    U = union over pairs (reference sentence r, predicted sentence h) of the words of one LCS(r, h)
    p = |U| / |distinct predicted words|, r = |U| / |distinct reference words|
    """
    predicted, expected = _sentences(prediction, MAX_WORDS), _sentences(reference, MAX_WORDS)
    if not predicted or not expected:
        return NOTHING
    words = [{word for sentence in side for word in sentence} for side in (predicted, expected)]
    both = len(_union_lcs(expected, predicted, words[0] & words[1]))
    return Rouge(both / len(words[0]), both / len(words[1]))


def _sentences(text: str, most: int) -> list[tuple[str, ...]]:
    """Words, `most` in all, of the pieces between full stops; white space alone is a sentence of one empty word."""
    sentences: list[tuple[str, ...]] = []
    for piece in text.split("."):
        if piece and most > 0:
            words = tuple(piece.split()[:most]) or ("",)
            sentences.append(words)
            most -= len(words)
    return sentences


def _grams(sentences: list[tuple[str, ...]], n: int) -> set[tuple[str, ...]]:
    words = [word for sentence in sentences for word in sentence]
    return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}


def _union_lcs(expected: list[tuple[str, ...]], predicted: list[tuple[str, ...]], common: set[str]) -> set[str]:
    """The union; pairs are left out whose common words are all in it already, for they cannot add any."""
    places: dict[str, dict[tuple[str, ...], None]] = {}
    for sentence in dict.fromkeys(predicted):
        for word in sentence:
            places.setdefault(word, {})[sentence] = None
    found: set[str] = set()
    for sentence in dict.fromkeys(expected):
        open_words = common.intersection(sentence) - found
        for other in dict.fromkeys(other for word in sorted(open_words) for other in places[word]):
            if not open_words.isdisjoint(other):
                found |= {sentence[place] for place, _ in lcs_pairs(sentence, other)}
                open_words -= found
    return found
