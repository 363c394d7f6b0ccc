"""What a sparse-attention method is: a stage that adds keys to a call, and its index over the keys.

Axis letters: b batch, h query heads, g KV heads, q query rows of a call, k keys, d head dim, s slots, p pages.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import ClassVar, Protocol, Self

from torch import Tensor

from sahub.attention.budgets import Density
from sahub.attention.call import Call, Geometry, Scores
from sahub.attention.selection import Selection


class Index(Protocol):
    """What a method remembers about the keys of one (example, layer), fed as they arrive.

    Any chunking of the same keys gives the same index. A selection for Q > 1 rows is asked after all K keys were
    appended and must equal asking row by row, each with the index as it was when the row's own key was the last.
    """

    length: int  # keys appended so far, padding included

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None) -> None:
        """Take [b, g, n, d] more keys, [b, g, n, dv] values and [b, n] validity (None = all valid)."""

    def freeze(self) -> None:
        """End the prefix: what is learned from it (centroids, hash centres) is fixed from here on."""

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None) -> None:
        """Become exactly what the index was at `length` keys; k, v, valid hold at least those keys."""

    def fork(self) -> Self:
        """An independent copy; cheap, buffers are copied when one of the two writes."""


class Taking(Index, Protocol):
    """The index of a stage that is `batched`."""

    def take(self, rows: Tensor) -> Self:
        """An independent copy of some of its sequences, int64 [n], once the prefix has ended; one may come twice."""


class Watching(Index, Protocol):
    """The index of a stage that watches the rows."""

    def observe(self, call: Call) -> None:
        """See the rows of a call, whose keys were all appended; the same rows may be shown more than once."""


@dataclass(frozen=True, kw_only=True)
class Stage:
    """Base of every method: the dataclass fields are its hyperparameters, checked in `__post_init__`.

    A field's metadata may hold `unit` and `search`, the default range a search draws it from:
    {low, high, log?, step?} or {choices, in_budget?}; of a size also `share`, the share of what is left of the budget
    that it starts from where the stack is composed (builder=compose), with its `search`. Wrong values raise ConfigError
    as `field=value: what must hold`.
    """

    samples: ClassVar[bool] = False  # keeps keys by chance, with log-weight -log p; at most one such stage in a stack
    batched: ClassVar[bool] = False  # reads keys that share a prefix, see SharedPrefix; its index is a Taking
    by_position: ClassVar[bool] = False  # what it keeps depends on the keys that a row sees, and sizes, alone
    watches: ClassVar[bool] = False  # its index is a Watching: it is shown the rows of every call, dense or not

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The keys this stage adds to those already `taken`; a function of its arguments alone."""
        raise NotImplementedError

    def span(self, call: Call, kept: int) -> range | None:
        """What a stage that is `by_position` adds for a single row without a mask, of which `kept` keys are kept.

        Right where none of these is among them; None = it is asked to `add`.
        """
        del call, kept
        return None

    def index_key(self) -> Hashable | None:
        """Identity of the index: method and index hyperparameters, no budgets. None = the stage needs no index."""
        return None

    def new_index(self, *, layer: int, seed: int, example: int) -> Index:
        """An empty index; only asked of stages with an index_key."""
        raise NotImplementedError

    def check(self, geometry: Geometry) -> None:
        """Raise ConfigError (`field=value: what must hold`) for fields or files that do not fit a model."""

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """Index bits read per key and KV head in one decode step over num_keys keys."""
        del geometry, num_keys
        return 0.0

    @property
    def any_layer(self) -> bool:
        """Whether choice and index do not depend on the layer's number, so that layers can be one batch."""
        return False

    @property
    def keeps_all(self) -> bool:
        """Whether the fields say that every valid key is kept."""
        return False

    @property
    def budget(self) -> Density | None:
        """The `density` this stage fills up to, or the `max_density` it stays within, where it has one."""
        select = getattr(self, "select", None) or {}
        found = (getattr(self, name, None) or select.get(name) for name in ("density", "max_density"))
        return next((one for one in found if one is not None), None)


class Scorer(Protocol):
    """Approximate logits of the keys (or pages of keys) of a call, from an index."""

    def __call__(self, call: Call, index: Index | None) -> Scores:
        """Logits, already multiplied by the softmax scale, at token or page granularity."""
        ...
