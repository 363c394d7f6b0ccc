"""LooGLE: n-gram overlap for questions and summaries, matched masks for cloze.

Source   bigai-nlco/LooGLE Evaluation/automatic_metrics.py and automatic_eval.py @6734382
Differs  METEOR (see there) and cloze parsing (literals only; officially the prediction is evaluated as code);
         with several references the best one counts; BERTScore only where it is asked for
kvpress  of a cloze data set, an answer that does not parse weighs as one mask, not as all of its masks
"""

import ast
import json
import math
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

from sahub.errors import ScoreError
from sahub.scores.benchmark import Benchmark, Metric, Metrics, Row, best, each, mean, short, texts
from sahub.scores.rouge import rouge_l, rouge_n

MAX_LITERAL = 100_000  # characters; a longer cloze answer counts as one that does not parse
MAX_STEMMED = 64  # characters; a longer token is no word and is its own stem


def _best(compare: Callable[[str, str], float]) -> Metric:
    # Officially an empty answer is the word None.
    return best(lambda prediction, reference: compare(prediction or "None", reference))


def _tokens(text: str) -> list[str]:
    return text.split()


def bleu(prediction: str, reference: str, n: int) -> float:
    """n-gram precision (of that n alone) x brevity penalty, without smoothing; 0 where no word or no n-gram is shared.

    penalty = 1 if |prediction| > |reference| else exp(1 - |reference| / |prediction|), in words
    """
    words, expected = _tokens(prediction), _tokens(reference)
    if not set(words) & set(expected):
        return 0.0
    grams = [Counter(zip(*(side[i:] for i in range(n)), strict=False)) for side in (words, expected)]
    hits = (grams[0] & grams[1]).total()
    penalty = 1.0 if len(words) > len(expected) else math.exp(1 - len(expected) / len(words))
    return penalty * hits / max(1, grams[0].total())


def meteor(prediction: str, reference: str) -> float:
    """METEOR of the sorted distinct tokens: exact matches, then equal Porter stems.

    F = PR / (0.9 P + 0.1 R), score = F (1 - 0.5 (chunks / matches)^3)

    Source   Lavie and Agarwal 2007, aclanthology.org/W07-0734
    Differs  officially tokens are Python sets, whose order, and so the score, is random in every process; sorting picks
             the most frequent value. No synonyms: they need a WordNet download.
    """
    sides = [[token.lower() for token in sorted(set(_tokens(text)))] for text in (prediction, reference)]
    left = [dict(enumerate(side)) for side in sides]
    pairs = _match(left[0], left[1])
    stem = _stemmer()
    for side in left:
        side.update({place: stem(word) for place, word in side.items() if len(word) <= MAX_STEMMED})
    pairs = sorted(pairs + _match(left[0], left[1]))
    if not pairs:
        return 0.0
    precision, recall = len(pairs) / len(sides[0]), len(pairs) / len(sides[1])
    runs = sum((b[0] - a[0], b[1] - a[1]) != (1, 1) for a, b in pairwise(pairs))
    weighted = precision * recall / (0.9 * precision + 0.1 * recall)
    return weighted * (1 - 0.5 * ((runs + 1) / len(pairs)) ** 3)


def _match(words: dict[int, str], expected: dict[int, str]) -> list[tuple[int, int]]:
    """Pairs of places of equal words, from the end of both sides; what is matched is taken out of both."""
    places: dict[str, list[int]] = {}
    for place, word in expected.items():
        places.setdefault(word, []).append(place)
    pairs = [(place, places[word].pop()) for place, word in reversed(words.items()) if places.get(word)]
    for place, other in pairs:
        del words[place], expected[other]
    return pairs


@cache
def _stemmer() -> Callable[[str], str]:
    from nltk.stem.porter import PorterStemmer  # only scores that need it pay for it

    stem: Callable[[str], str] = PorterStemmer().stem
    return stem


def exact_match(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """Masks whose value is the expected one / masks."""
    return _cloze(prediction, references, _is_equal)


def partial_match(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """Masks whose value shares a word with the expected one, respecting case / masks."""
    return _cloze(prediction, references, _shares_a_word)


def exact_match_kvpress(prediction: str, references: Any, classes: Sequence[str] | None = None) -> float:
    """exact_match of one row; of a data set, an answer that does not parse weighs as one mask."""
    return exact_match(prediction, references)


def _is_equal(value: Any, expected: Any) -> bool:
    return isinstance(value, str) and value == expected


def _shares_a_word(value: Any, expected: Any) -> bool:
    return isinstance(value, str) and not set(value.split()).isdisjoint(str(expected).split())


def _cloze(prediction: str, references: Any, is_match: Callable[[Any, Any], bool]) -> float:
    """Matched masks / masks; nothing matches where the whole prediction is not the literal of a dict."""
    expected, answer = _masks(references), _literal(prediction) or {}
    return sum(mask in answer and is_match(answer[mask], value) for mask, value in expected.items()) / len(expected)


def _literal(prediction: str) -> dict[Any, Any] | None:
    if len(prediction) > MAX_LITERAL:
        return None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about escapes inside the model's text
            value = ast.literal_eval(prediction)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _masks(references: Any) -> Mapping[str, Any]:
    """The expected masks: a mapping, or one JSON object as text."""
    found = references
    if not isinstance(found, Mapping):
        (text, *_) = texts(references)
        try:
            found = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise ScoreError(f"references={text[:80]!r}: must be a JSON object of masks: {error}") from None
    if not isinstance(found, Mapping) or not found:
        raise ScoreError(f"references={str(references)[:80]!r}: must map at least one mask to its entity")
    return found


def _check_masks(references: Any, classes: Sequence[str] | None = None) -> None:
    """Every mask of the cloze stands for a text: no answer can match anything else."""
    for mask, entity in _masks(references).items():
        if not isinstance(entity, str) or not entity.strip():
            raise ScoreError(f"references={short(references)}: {mask} must stand for a text")


def bert_score(prediction: str, reference: str) -> float:
    """BERTScore (roberta-large, neither idf nor rescaled) as LooGLE asks for it: sides swapped, recall.

    That is the precision of the prediction. Raises ScoreError where the package or its weights are missing.

    Source   Zhang et al. 2020, arXiv:1904.09675
    """
    # Lone surrogates have no bytes that a tokenizer could read.
    sides = [[text.encode("utf-8", "replace").decode("utf-8")] for text in (reference, prediction)]
    _, recall, _ = _scorer().score(*sides)
    return float(recall[0])


@cache
def _scorer() -> Any:
    try:
        from bert_score import BERTScorer  # only scores that need it pay for it
    except ImportError as error:
        raise ScoreError(
            f"metric=bert_score: bert-score is missing: pip install 'sahub[bertscore]' ({error})"
        ) from None
    try:
        return BERTScorer(lang="en")
    except OSError as error:
        said = str(error).splitlines()[0]
        raise ScoreError(f"metric=bert_score: no weights: run `hf download roberta-large` ({said})") from None


def aggregate(metrics: Metrics, rows: Sequence[Row], classes: Sequence[str] | None = None) -> dict[str, float]:
    """Every metric as a fraction: plain means; for cloze matched / masks over all rows, 4 decimals."""
    found = {}
    for name, metric in metrics.items():
        scores = each(metric, rows, classes)
        if metric in _WEIGHTS:
            weights = [_WEIGHTS[metric](row) for row in rows]
            found[name] = round(sum(s * w for s, w in zip(scores, weights, strict=True)) / sum(weights), 4)
        else:
            found[name] = mean(scores)
    return found


def _num_masks(row: Row) -> int:
    return len(_masks(row["references"]))


_WEIGHTS: dict[Metric, Callable[[Row], int]] = {
    exact_match: _num_masks,
    partial_match: _num_masks,
    exact_match_kvpress: lambda row: 1 if _literal(row["prediction"]) is None else _num_masks(row),
}
_TEXT = {
    "rouge-l-recall": _best(lambda prediction, reference: rouge_l(prediction, reference).recall),
    "rouge-1-recall": _best(lambda prediction, reference: rouge_n(prediction, reference, 1).recall),
    "rouge-2-recall": _best(lambda prediction, reference: rouge_n(prediction, reference, 2).recall),
    "bleu1": _best(lambda prediction, reference: bleu(prediction, reference, 1)),
    "bleu4": _best(lambda prediction, reference: bleu(prediction, reference, 4)),
    "meteor": _best(meteor),
}
_OF_TEXT = ("shortdep_qa", "longdep_qa", "longdep_summarization")

BENCHMARK = Benchmark(
    subsets=dict.fromkeys(_OF_TEXT, _TEXT)
    | {"shortdep_cloze": {"exact_match": exact_match, "partial_match": partial_match}},
    on_request={subset: {"bert_score": _best(bert_score)} for subset in _OF_TEXT}
    | {"shortdep_cloze": {"kvpress": exact_match_kvpress}},
    checks={"shortdep_cloze": _check_masks},
    aggregate=aggregate,
)
