"""The packaged tokenizer: byte-level BPE in which the words of generated text and numbers to 999 are single tokens."""

import json
import re
from itertools import chain
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from sahub import wording

VOCABULARY = 4096
BOS, EOS, PAD = SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>")
# Words with their leading space, digits in groups of up to three, runs of punctuation, white space.
PIECES = r" ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"


AFFIXES = (
    "ation ing ed er est ness ment ful less able ible tion sion ity ous ive ly al ic ism ist ance ence ship hood ward "
    "wise un re in im dis en em non over mis sub pre inter fore de trans super semi anti mid under"
)


def _pre_tokenizer() -> pre_tokenizers.PreTokenizer:
    return pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )


def _words() -> list[str]:
    """Every word of the generators, in order of first use."""
    rng = Random(0)
    fixed = [wording.NOISE, wording.instruction(), wording.needle("a", "1"), wording.question("a")]
    text = chain(
        wording.ADJECTIVES,
        wording.NOUNS,
        fixed,
        [wording.answer_prefix("a")],
        (wording.prose(rng) for _ in range(3000)),
    )
    return list(dict.fromkeys(re.findall(r"[A-Za-z]+", " ".join(text))))


def build() -> Tokenizer:
    """A tokenizer of VOCABULARY entries that round-trips any text."""
    words = _words()
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer()
    forced = [f"{n:0{width}d}" for width in (2, 3) for n in range(10**width)]
    forced += [form for word in words for form in (word, f"Ġ{word}")]
    corpus = chain.from_iterable(
        (f" {word}", f" {word}", word, word.capitalize())
        for word in [*wording.common_words(), *AFFIXES.split(), *words]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    learner.train_from_iterator(corpus, trainer)
    learned = json.loads(learner.to_str())["model"]
    pieces = sorted(learned["vocab"], key=learned["vocab"].get)
    entries = list(dict.fromkeys([*SPECIAL, *pieces[:256], *forced, *pieces]))[:VOCABULARY]
    vocabulary = {piece: i for i, piece in enumerate(entries)}
    merges = [(a, b) for a, b in learned["merges"] if {a, b, a + b} <= vocabulary.keys()]
    # `ignore_merges`: a piece that stands in the vocabulary is one token, whatever the merges would make of it.
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token."""
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number
