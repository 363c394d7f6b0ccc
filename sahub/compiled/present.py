"""Whether there is a compiler."""

import logging
from functools import cache

logger = logging.getLogger(__name__)
LANES = 4  # rows that loops go through at once: some want a multiple of it


@cache
def at_hand() -> bool:
    """Whether numba can be imported: sahub requires it, but what runs on another machine may go without."""
    try:
        import numba  # noqa: F401  # takes a second
    except ImportError as error:
        logger.warning("numba cannot be imported (%s): on a CPU, torch chooses and attends, which is slower", error)
        return False
    return True
