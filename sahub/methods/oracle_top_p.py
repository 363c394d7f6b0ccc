"""Oracle top-p: keep the fewest keys that hold a share of the true attention mass."""

from dataclasses import dataclass, field
from functools import cached_property

from sahub.attention.call import Call, Geometry
from sahub.attention.choose import choose, exact_scores
from sahub.attention.selection import Selection
from sahub.attention.selector import Selector
from sahub.attention.stage import Index, Stage


@dataclass(frozen=True, kw_only=True)
class OracleTopP(Stage):
    """Attend to the keys of the largest q.k until more than `top_p` of the softmax mass is kept, per query head.

    mass=residual  the share is of the mass that earlier stages left (sink and local at 60 % and top_p 0.7 give 88 %)
    mass=total     the share is of the whole row, earlier stages included; may add nothing

    Differs  sums in fp64; top_p 1 keeps every key whose mass does not underflow
    Memory   16 * d bits per key and KV head (it reads every key)
    """

    batched = True

    top_p: float = field(metadata={"unit": "share of the softmax mass", "search": {"low": 0.1, "high": 0.99}})
    mass: str = field(default="residual", metadata={"search": {"choices": ["residual", "total"]}})

    def __post_init__(self) -> None:
        self.selector  # noqa: B018  (checks the fields)

    @cached_property
    def selector(self) -> Selector:
        """What the fields ask for."""
        return Selector.of(top_p=self.top_p, mass=self.mass, ties=True)

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The best keys by their true logits, as many as the mass asks for."""
        del index
        return choose(call, taken, exact_scores(call), self.selector)

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """Every key in 16 bits."""
        del num_keys
        return 16.0 * geometry.head_dim

    @property
    def any_layer(self) -> bool:
        """Always."""
        return True
