"""The words and sentences of generated text: our own, fixed, and shared by tasks, tokenizer and training."""

import re
from collections.abc import Sequence
from functools import cache
from random import Random
from string import ascii_lowercase, ascii_uppercase
from uuid import UUID

from sahub.files.package import ROOT


def _words(text: str) -> list[str]:
    return text.split()


ADJECTIVES = _words(
    "amber ancient autumn bitter black blue bold brave bright brisk broad bronze calm careful cheerful clear clever "
    "cold copper cosy crimson curious damp dark deep distant dry dusty eager early empty faint famous fancy fearless "
    "fierce foggy fresh frosty gentle giant golden grand grateful green grey hasty heavy hidden hollow honest humble "
    "icy idle ivory jolly keen kind late lazy light lively lonely loud lucky mellow merry mighty misty modern narrow "
    "neat noble olive patient plain polite proud purple quick quiet rapid rare red restless rough royal rusty scarlet "
    "secret shiny silent silver simple sleepy slow smooth solid steady stormy strange sturdy sunny swift tall tender "
    "tidy tiny vast violet warm wild winding wise wooden young"
)
CELL_GROUPS = _words(
    "acorn anchor apple arch arrow badger bakery barn basket beacon bell bench birch boat bottle bridge brook bucket "
    "cabin candle canyon castle cave chapel cherry cliff clock cloud compass copse cottage crane creek crow daisy "
    "desert dolphin door dragon eagle falcon feather fern ferry field flame flute forest fountain fox garden gate "
    "glacier goose grove hammer harbor hawk hedge heron hill horse island jacket kettle kite ladder lagoon lamp "
    "lantern leaf library lion lizard maple market marsh meadow mill mirror moon mountain needle oak ocean orchard "
    "otter owl palace panda pearl pebble pepper pillow pine planet pond prairie quarry rabbit raven reef ribbon river "
    "robin rocket rose saddle sailor salmon shell ship spoon spruce squirrel stable star station stone summit table "
    "temple thistle tiger tower train tulip tunnel turtle valley village violin wagon walnut well whale willow window "
    "wolf"
)
PEOPLE = (
    "the baker|the captain|the doctor|the driver|the farmer|the gardener|the guide|the painter|the pilot|the teacher"
)
VERBS = "watched|found|carried|painted|followed|remembered|described|repaired|crossed|visited|opened|measured"
PLACES = "near|behind|above|below|beside|beyond|across from|not far from"

# One line of filler: what the haystack of the simplest retrieval task repeats.
NOISE = "Rain fell on the roof. The road was long. A door stood open. Somebody sang. Then it was quiet again."
NUMBER, CODE = "number", "code"  # what a needle hides: seven digits, or a uuid


def _text(name: str) -> str:
    return (ROOT / "texts" / name).read_text(encoding="utf-8")


@cache
def common_words() -> list[str]:
    """Frequent English words: what the packaged tokenizer knows besides the generators' own."""
    return _text("common_words.txt").split()


@cache
def essay() -> str:
    """The built-in prose: paragraphs separated by empty lines."""
    return _text("essay.txt")


def sentences(text: str) -> list[str]:
    """The sentences of a text, white space between them dropped."""
    return [part for part in re.split(r"(?<=[.!?])\s+", text.strip()) if part]


def key(rng: Random) -> str:
    """An adjective and a noun joined by a hyphen."""
    return f"{rng.choice(ADJECTIVES)}-{rng.choice(CELL_GROUPS)}"


def number(rng: Random) -> str:
    """A uniform number of seven digits."""
    return str(rng.randint(1_000_000, 9_999_999))


def code(rng: Random) -> str:
    """A random uuid (version 4)."""
    return str(UUID(int=rng.getrandbits(128), version=4))


def letters(rng: Random, count: int) -> str:
    """`count` random capitals: the name of a variable."""
    return "".join(rng.choices(ascii_uppercase, k=count))


def listing(names: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b, and c`."""
    *head, last = names
    return last if not head else f"{', '.join(head)}{',' if len(head) > 1 else ''} and {last}"


def instruction(kind: str = NUMBER) -> str:
    """What opens a text in which needles are hidden."""
    return f"Some secret {kind}s are hidden in the following text. Remember them, they will be asked for later."


def needle(name: str, value: str, kind: str = NUMBER) -> str:
    """The sentence that binds a key to its value."""
    return f"The secret {kind} for {name} is: {value}."


def question(*names: str, kind: str = NUMBER, several: bool = False) -> str:
    """The question about one key, or (`several` values expected) about one or more."""
    wanted = f"are all the secret {kind}s" if several else f"is the secret {kind}"
    return f"\nWhat {wanted} for {listing(names)} in the text above?"


def answer_prefix(*names: str, kind: str = NUMBER, several: bool = False) -> str:
    """The start of the answer, up to the value."""
    return f"The secret {kind}{'s' if several else ''} for {listing(names)} {'are' if several else 'is'}:"


MARK = " *"  # before each item of an answer that lists several


def item(name: str, value: str) -> str:
    """One of several values in an answer of the packaged model: the key again, so that the value stands next to it."""
    return f" {name} is:{MARK}{value}"


# Variable tracking: a number is written to a variable and copied from one to the next.
VARIABLES = "In the following text, numbers are written to variables and copied from one variable to the next."


def assignment(source: str, name: str) -> str:
    """The statement that gives variable `name` a number or the value of another variable."""
    return f"{'Write' if source.isdigit() else 'Copy'} {source} to {name}."


def variables_question(value: str, count: int) -> str:
    """The question which `count` variables hold a value."""
    return f"\nWhich {count} variables hold the number {value} in the text above?"


def variables_prefix(value: str, count: int) -> str:
    """The start of its answer."""
    return f"The {count} variables that hold the number {value} are:"


# Counting words: common ones in a numbered list, frequent ones among made-up words.
WORDS = "Below is a numbered list of words. Some words stand in it more often than the others. Remember those."
MADE_UP = "The following text is made of words that mean nothing. Pass over the dots and count the other words."
DOTS = "...."


def numbered(words: Sequence[str]) -> str:
    """`1. river 2. bell`: words as a numbered list on one line."""
    return " ".join(f"{i}. {word}" for i, word in enumerate(words, 1))


def words_question(count: int) -> str:
    """The question for the common words of a list."""
    return f"\nWhich {count} words stand most often in the list above?"


def words_prefix(count: int) -> str:
    """The start of its answer."""
    return f"The {count} words that stand most often in the list are:"


def made_up(rng: Random) -> str:
    """Six random lower-case letters."""
    return "".join(rng.choices(ascii_lowercase, k=6))


def made_up_question(count: int) -> str:
    """The question for the most frequent made-up words."""
    return f"\nWhich {count} words stand most often in the text above?"


def made_up_prefix(count: int) -> str:
    """The start of its answer."""
    return f"The {count} words that stand most often in the text are:"


def prose(rng: Random) -> str:
    """One sentence from a small grammar."""
    person, verb, place = (rng.choice(words.split("|")) for words in (PEOPLE, VERBS, PLACES))
    first, second = rng.choice(CELL_GROUPS), rng.choice(CELL_GROUPS)
    forms = (
        f"{person.capitalize()} {verb} the {rng.choice(ADJECTIVES)} {first} {place} the {second}.",
        f"The {first} {place} the {second} was {rng.choice(ADJECTIVES)}.",
        f"{person.capitalize()} said that the {first} was {rng.choice(ADJECTIVES)} and {rng.choice(ADJECTIVES)}.",
        f"There were {rng.randint(2, 999)} steps from the {first} to the {second}.",
    )
    return rng.choice(forms)
