"""Reading `task.options` of generated tasks: every key known, every value checked, the essay a text on this machine."""

from pathlib import Path
from textwrap import wrap

from sahub.data import vocabulary
from sahub.data.examples import TaskSpec
from sahub.errors import ConfigError, DataError, MissingFiles
from sahub.files.pointers import ADVICE as POINTER
from sahub.files.pointers import is_pointer

LONGEST = 400  # characters of a sentence; longer ones, as of text without full stops, are cut


def check_names(spec: TaskSpec, *names: str) -> None:
    """Raise ConfigError for an option that the task does not read; every task reads `num_examples`."""
    known = ("num_examples", *names)
    if unknown := [str(name) for name in spec.options if name not in known]:
        raise ConfigError(f"task.options.{unknown[0]}: {spec.subset} has no such option; it has {', '.join(known)}")


def whole(spec: TaskSpec, name: str, default: int, *, most: int, why: str = "") -> int:
    """A whole number from 1 to `most`; `why` says why not more. Raises ConfigError."""
    value = spec.options.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        must = why if why and isinstance(value, int) and value > most else f"must be a whole number from 1 to {most}"
        raise ConfigError(f"task.options.{name}={value}: {must}")
    return value


def essay(spec: TaskSpec) -> list[str]:
    """The sentences of `options.essay`, null: of the built-in prose; white space within them is one space.

    Raises ConfigError where it is no path, MissingFiles where there is no such file, DataError where it holds no text.
    """
    path = spec.options.get("essay")
    if path is None:
        text = vocabulary.essay()
    elif isinstance(path, str):
        text = read_text(f"task.options.essay={path}", path)
    else:
        raise ConfigError(f"task.options.essay={path}: must be the path of a text, or null for the built-in one")
    return [part for sentence in vocabulary.sentences(text) for part in _cut(" ".join(sentence.split()))]


def _cut(sentence: str) -> list[str]:
    return [sentence] if len(sentence) <= LONGEST else wrap(sentence, LONGEST, break_on_hyphens=False)


def read_text(address: str, path: str) -> str:
    """The text of a file, of which errors speak as `address`. Raises as `essay`."""
    advice = "give the path of a text in UTF-8, or null for the built-in one"
    file = Path(path).expanduser()
    if not file.exists():
        raise MissingFiles(f"{address}: no such file; {advice}")
    try:
        if is_pointer(file):
            raise DataError(f"{address}: {POINTER}")
        text = file.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise DataError(f"{address}: not UTF-8 (byte {error.start}); {advice}") from None
    except OSError as error:
        raise DataError(f"{address}: cannot be read ({error.strerror}); {advice}") from None
    if not text.strip():
        raise DataError(f"{address}: an empty file; {advice}")
    return text
