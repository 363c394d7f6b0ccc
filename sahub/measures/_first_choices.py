"""Which tokens of an answer are the first choice under a stack as they are densely."""

from typing import Any


def changed(dense: Any, sparse: Any) -> Any:
    """Logits [n, vocabulary] before each token -> bool [n], True where the first choice is another."""
    return dense.argmax(-1) != sparse.argmax(-1)
