"""Every error a person can meet, in one tree.

SahubError
├── ConfigError        a key, a value or a combination that cannot be meant (also a ValueError)
├── Infeasible         a point of a search space that a declared limit rules out; it never runs
├── UnsupportedModel   a model, or something it has, that sparse attention cannot be attached to
├── MissingFiles       weights or data that are not on this machine, with the commands that fetch them
├── DataError          data that are here but not what the task documents, or too few of them
│   └── NewerFormat    a file that a newer version has written
├── ScoreError         a prediction or reference that a metric cannot score
├── DenseDiffers       every key was kept, and the answers are still not the model's own
├── SparseNeverRan     the receipts of a run show that its sparse path was not taken
└── RunError           a run that could not produce a result, with its causes
"""

import difflib
import errno
from collections.abc import Iterable, Sequence

FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NO_MEMORY = ("out of memory", "can't allocate memory", "not enough memory")  # as torch's allocators say it


class SahubError(Exception):
    """Base of all errors meant for people: the message names what, where, and what to do."""


class ConfigError(SahubError, ValueError):
    """A configuration value is wrong: `address=value: what must hold`."""


class Infeasible(SahubError):
    """A declared limit rejects this configuration before any work. `excess`: how far beyond it, as a share of it."""

    def __init__(self, message: str, excess: float = 0.0) -> None:
        super().__init__(message)
        self.excess = excess


class UnsupportedModel(SahubError):
    """The model has a part that sparse attention does not support here."""


class MissingFiles(SahubError):
    """Weights or data are not on this machine."""


class DataError(SahubError):
    """Data do not have the documented shape, or are too few."""


class NewerFormat(DataError):
    """A file was written by a newer version."""


class ScoreError(SahubError):
    """A metric cannot score this prediction against these references."""


class SparseNeverRan(SahubError):
    """The hook did not fire, or kept every key although its stack says otherwise."""


class DenseDiffers(SahubError):
    """A stack that keeps every key does not give the model's own logits: something else of the attention is lost."""


class RunError(SahubError):
    """A run ended without a usable result."""


def disk_trouble(error: BaseException) -> str | None:
    """One line about a file that could not be read or written, None for any other error."""
    if not isinstance(error, OSError) or not error.strerror or not (error.filename or error.errno in FULL):
        return None
    room = "; make room and run the same command again" if error.errno in FULL else ""
    return f"{error.filename or 'a file'}: {error.strerror}{room}"


def memory_trouble(error: BaseException) -> str | None:
    """One line about memory that could not be had, of a device or the host; None for any other error."""
    said = str(error).partition("\n")[0]
    lacking = type(error).__name__ == "OutOfMemoryError" or any(one in said for one in NO_MEMORY)
    if not isinstance(error, MemoryError) and not (isinstance(error, RuntimeError) and lacking):
        return None
    return (
        f"out of memory, also with one question at a time and no other context held ({said[:200] or 'MemoryError'}): "
        "take fewer workers (compute.workers, compute.actors_per_gpu), shorter contexts (max_context_length of search "
        "and validate), model.dtype=bfloat16 or a smaller compute.prefix_mib"
    )


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean ruler/vt?` where something is close to the word, else nothing."""
    tails = {tail: name for name in known for tail in (name.rpartition("/")[2], name)}
    close = difflib.get_close_matches(word, tails, n=1)
    return f"; did you mean {tails[close[0]]}?" if close else ""


def listed(names: Sequence[str], most: int = 150) -> str:
    """The names in one line, shortened where there are too many to read."""
    return ", ".join(names[:most]) + (f", and {len(names) - most} more" if len(names) > most else "")
