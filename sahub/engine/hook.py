"""Sparse attention of one request, with receipts: what the layers with full attention are routed to."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import product

import torch
from torch import Tensor

from sahub.attention.call import Geometry
from sahub.attention.selection import Selection
from sahub.attention.stack import Stack, StackState
from sahub.engine.call_stats import Inputs, Tally
from sahub.engine.contexts.prefix import Prefix
from sahub.errors import SahubError, SparseNeverRan


@dataclass
class Hook:
    """One request's sparse attention: a state per layer, and a tally per layer and phase (question, decode).

    `measure` says at which calls of a phase the dense output is computed too: every nth, 0 for never.
    """

    stack: Stack
    geometry: Geometry
    dense_layers: frozenset[int] = frozenset()
    dense_phases: frozenset[str] = frozenset()
    measure: int = 1
    seed: int = 0
    example: int = 0
    states: dict[int, StackState] = field(default_factory=dict)
    tallies: dict[tuple[int, str], Tally] = field(default_factory=dict)
    guarded: bool = False  # whose cache it is, is not known: check that it only grows
    prompts: int = 0  # calls without past keys
    newest: Tensor | None = None
    phase: str = "question"

    @property
    def layers(self) -> list[int]:
        """The layers that are sparse."""
        return [layer for layer in self.geometry.layers if layer not in self.dense_layers]

    @contextmanager
    def after(self, prefix: Prefix) -> Iterator[None]:
        """Hold the states at the end of the prefix, building what no stack with the same indexes built before.

        They go with the request: whoever keeps what was counted keeps no index.
        """
        try:
            for layer in self.layers:
                self.states[layer] = prefix.state(self.stack, layer, self.seed)
            yield
        finally:
            self.states.clear()

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """Attention of one call of one layer: [B, Q, Hq, Dv].

        A call whose rows are all the keys there are is a prefill: dense, and the start of a new state.
        """
        if layer in self.dense_layers:
            return call.dense()
        chunk, length = call.query.shape[2], call.key.shape[2]
        if layer == self.layers[0] and self.guarded:
            self._guard(call, chunk, length)
        state = self._state(layer, chunk, length)
        new = slice(state.length, length)
        valid = None if call.mask is None else call.mask[:, 0, -1, new]
        state.append(call.key[:, :, new], call.value[:, :, new], valid)
        if chunk == length:
            state.freeze()
            self.prompts += layer == self.layers[0]
        if chunk == length or self.phase in self.dense_phases:
            if chunk < length:
                state.observe(call.query, call.key, call.value, **call.formula)
            return call.dense()
        selection = state.select(call.query, call.key, call.value, **call.formula)
        output = call.sparse(selection)
        self._count(layer, selection, call, output)
        return output

    def verify(self, forwards: Mapping[str, int]) -> None:
        """Compare the tallies with the forward passes made in each phase. Raises SparseNeverRan.

        One wait for the device per request.
        """
        sparse = {phase: calls for phase, calls in forwards.items() if phase not in self.dense_phases}
        for layer, (phase, calls) in product(self.layers, sparse.items()):
            seen = self.tallies.get((layer, phase), Tally()).calls
            if seen != calls:
                raise SparseNeverRan(
                    f"sparse attention never ran: layer {layer} made {seen} sparse calls in {calls} forward passes "
                    f"({phase}); the model does not route its attention through the hook"
                )
        self.check_rows()
        tallies = list(self.tallies.values())
        rows = sum(tally.rows for tally in tallies)
        density = float(sum(tally.density for tally in tallies)) / rows if rows else 0.0
        asked = self.stack.density
        if rows and density >= 1.0 - 1e-9 and asked not in (None, 1.0) and not self.stack.is_dense:
            raise SparseNeverRan(
                f"sparse attention never ran: every key was kept where the stack asks for {asked}; in a text this "
                "short its fixed sizes (at_least, page_size) may cover everything"
            )

    def check_rows(self) -> None:
        """Raise SahubError if a row with a valid key had nothing selected. Waits for the device."""
        if float(sum(tally.bare for tally in self.tallies.values())) > 0:
            raise SahubError("a row with valid keys had nothing selected: give the stack a sink, a window or a density")

    def _guard(self, call: Inputs, chunk: int, length: int) -> None:
        """Raise SahubError where the cache is not one that grows: its last known key must stand where it stood."""
        past = length - chunk
        seen = call.positions is None or int(call.positions.max()) + 1 == length
        if not (seen if call.mask is None else bool(call.mask[:, 0, -1, -1].any())):
            raise SahubError(f"{length} keys, and the last row does not see the last: static caches are not supported")
        state = self.states.get(self.layers[0])
        known = self.newest if past and state is not None and state.length == past else None
        if known is not None and not torch.equal(call.key[:, :, past - 1], known):
            raise SahubError("the cache was reordered or replaced between two steps: beam search is not supported")
        self.newest = call.key[:, :, -1].clone()

    def _state(self, layer: int, chunk: int, length: int) -> StackState:
        state = self.states.get(layer)
        if state is None or state.length > length - chunk:  # a new sequence began
            state = self.stack.new_state(layer=layer, seed=self.seed, example=self.example)
            self.states[layer] = state
        return state

    def _count(self, layer: int, selection: Selection, call: Inputs, output: Tensor) -> None:
        tally = self.tallies.setdefault((layer, self.phase), Tally())
        tally.add_selection(selection, call.query.shape[0] * call.query.shape[2])
        if self.measure and (tally.calls - 1) % self.measure == 0:
            tally.add_error(output, call.dense())
