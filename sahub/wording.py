"""The words and sentences of generated text: our own, fixed, and shared by tasks, tokenizer and training."""

from random import Random


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
NOUNS = _words(
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
INSTRUCTION = "Some secret numbers are hidden in the following text. Remember them, they will be asked for later."


def key(rng: Random) -> str:
    """An adjective and a noun joined by a hyphen."""
    return f"{rng.choice(ADJECTIVES)}-{rng.choice(NOUNS)}"


def number(rng: Random) -> str:
    """A uniform number of seven digits."""
    return str(rng.randint(1_000_000, 9_999_999))


def needle(name: str, value: str) -> str:
    """The sentence that binds a key to its value."""
    return f"The secret number for {name} is: {value}."


def question(name: str) -> str:
    """The question about a key."""
    return f"\nWhat is the secret number for {name} in the text above?"


def answer_prefix(name: str) -> str:
    """The start of the answer, up to the value."""
    return f"The secret number for {name} is:"


def prose(rng: Random) -> str:
    """One sentence from a small grammar."""
    person, verb, place = (rng.choice(words.split("|")) for words in (PEOPLE, VERBS, PLACES))
    first, second = rng.choice(NOUNS), rng.choice(NOUNS)
    forms = (
        f"{person.capitalize()} {verb} the {rng.choice(ADJECTIVES)} {first} {place} the {second}.",
        f"The {first} {place} the {second} was {rng.choice(ADJECTIVES)}.",
        f"{person.capitalize()} said that the {first} was {rng.choice(ADJECTIVES)} and {rng.choice(ADJECTIVES)}.",
        f"There were {rng.randint(2, 999)} steps from the {first} to the {second}.",
    )
    return rng.choice(forms)
