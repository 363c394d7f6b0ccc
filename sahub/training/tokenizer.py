"""The packaged tokenizer: byte-level BPE; words of generated text, numbers to 999 and hex bytes are one token."""

import json
import re
from itertools import chain, product
from random import Random
from string import ascii_uppercase

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from sahub.data import vocabulary

VOCABULARY = 4096
BOS, EOS, PAD = SPECIAL = ("<|bos|>", "<|eos|>", "<|pad|>")
_HEX = "[0-9a-f]{2}"
# Twelve hex digits end a uuid; lookbehind wants alternatives of fixed length.
_BEHIND = "|".join(rf"(?<=-[0-9a-f]{{4}}-[0-9a-f]{{{done}}})" for done in range(0, 12, 2))
# The bytes of uuids, capitals in pairs, words with their leading space, digits in groups of up to three, punctuation.
PIECES = (
    rf"{_HEX}(?=(?:{_HEX})*-[0-9a-f]{{4}})|(?:{_BEHIND}){_HEX}|\p{{Lu}}{{2}}"
    rf"| (?=\p{{Lu}}{{2}}|{_HEX}(?:{_HEX})*-[0-9a-f]{{4}})"
    r"| ?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
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
    fixed = [
        vocabulary.NOISE,
        *(form(kind) for kind in (vocabulary.NUMBER, vocabulary.CODE) for form in (vocabulary.instruction, _niah)),
        *(vocabulary.VARIABLES, vocabulary.assignment("1", "x"), vocabulary.assignment("x", "x")),
        *(vocabulary.variables_question("1", 5), vocabulary.variables_prefix("1", 5)),
        *(vocabulary.WORDS, vocabulary.words_question(5), vocabulary.words_prefix(5)),
        *(vocabulary.MADE_UP, vocabulary.made_up_question(3), vocabulary.made_up_prefix(3)),
    ]
    prose = (vocabulary.prose(rng) for _ in range(3000))
    text = " ".join(chain(vocabulary.ADJECTIVES, vocabulary.CELL_GROUPS, fixed, prose))
    return list(dict.fromkeys(re.findall(r"[A-Za-z]+", text)))


def _niah(kind: str) -> str:
    asked = (
        form("a", kind=kind, several=several)
        for form in (vocabulary.question, vocabulary.answer_prefix)
        for several in (False, True)
    )
    return " ".join([vocabulary.needle("a", "1", kind), *asked])


def build() -> Tokenizer:
    """A tokenizer of VOCABULARY entries that round-trips any text."""
    words = _words()
    learner = Tokenizer(models.BPE())
    learner.pre_tokenizer = _pre_tokenizer()
    forced = [f"{n:0{width}d}" for width in (2, 3) for n in range(10**width)]
    forced += [a + b for a, b in product(ascii_uppercase, repeat=2)]
    forced += [f"{byte:02x}" for byte in range(256)]
    forced += [form for word in words for form in (word, f"Ġ{word}")]
    forced += [f"Ġ{word}" for word in vocabulary.common_words()]
    forced.append(vocabulary.MARK.replace(" ", "Ġ"))
    corpus = chain.from_iterable(
        (f" {word}", f" {word}", word, word.capitalize()) for word in [*vocabulary.common_words(), *words]
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
    numbered = {piece: i for i, piece in enumerate(entries)}
    merges = [(a, b) for a, b in learned["merges"] if {a, b, a + b} <= numbered.keys()]
    # `ignore_merges`: a piece that stands in the vocabulary is one token, whatever the merges would make of it.
    tokenizer = Tokenizer(models.BPE(numbered, merges, ignore_merges=True))
    tokenizer.pre_tokenizer = _pre_tokenizer()
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in SPECIAL])
    return tokenizer


def mark_id(tokenizer: Tokenizer) -> int:
    """The id of what stands before each item of a list."""
    (number,) = tokenizer.encode(vocabulary.MARK, add_special_tokens=False).ids
    return int(number)


def special_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a special token."""
    number = tokenizer.token_to_id(token)
    assert number is not None
    return number
