"""Whether there is a compiler."""

from functools import cache
from importlib.util import find_spec


@cache
def at_hand() -> bool:
    """Whether numba is installed: sahub requires it, but what runs on another machine may go without."""
    return find_spec("numba") is not None
