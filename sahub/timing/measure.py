"""Stacks measured beside dense: decoding steps of a model over a cache of each length, in rounds that alternate."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, median

import torch

from sahub.attention.stack import Stack, StackState
from sahub.engine.contexts.cache import State, held, restore
from sahub.engine.model import Model
from sahub.engine.outcome import bytes_per_step
from sahub.engine.routing import attached
from sahub.errors import SparseNeverRan
from sahub.models.rope import fixed_frequencies
from sahub.timing.clock import Clock, Peak, clock_of, peak
from sahub.timing.filled import filled, text_tokens
from sahub.timing.step import NAMES, PLAIN, Parts, Timed, Way, grouped_matmul, plainly

WARM = 3  # steps before the rounds: the first makes room, the last is looked at


@dataclass(frozen=True, kw_only=True)
class Measured:
    """A decoding step of one stack over so many keys; the parts are medians, `step` that of the whole.

    density, kv_density  means over the sparse layers; aux_bits is per key and KV head
    bytes_read           keys, values and index of all sparse layers and KV heads; dense layers read all of theirs
    against_dense        how many times as fast as the dense step of the same round, median
    build_seconds        to index the keys of all layers
    peak_bytes           the most memory with this stack alone; None where the system does not say
    text_tokens          keys that are those of a text
    """

    name: str
    length: int
    parts: Parts
    step: float
    against_dense: float
    density: float
    kv_density: float
    aux_bits: float
    bytes_read: float
    build_seconds: float
    peak_bytes: int | None
    text_tokens: int


@dataclass(kw_only=True)
class _Runner:
    """One stack at work: what it holds of each layer, and what its rounds took."""

    name: str
    stack: Stack | None = None
    way: Way
    states: Mapping[int, StackState] = field(default_factory=dict)
    build_seconds: float = 0.0
    memory: Peak = field(default_factory=Peak)
    seen: Timed | None = None  # the step that was looked at
    taken: list[Parts] = field(default_factory=list)


def measured(
    model: Model,
    lengths: Sequence[int],
    stacks: Mapping[str, Stack],
    *,
    rounds: int,
    dense_layers: Sequence[int] = (),
    seed: int = 0,
) -> list[Measured]:
    """Dense, then every stack, length by length; rounds go over all lengths, so that a slow minute is slow for all.

    Raises SparseNeverRan where a model does not ask what it is routed to.
    """
    benches = [_Bench(model, length, rounds, dense_layers=dense_layers, seed=seed) for length in lengths]
    for bench in benches:
        bench.prepare(stacks)
    for number in range(rounds):
        for bench in benches:
            bench.round(number)
    return [one for bench in benches for one in bench.told()]


class _Bench:
    """A model with a cache of `length` tokens, on which steps of stacks are timed."""

    def __init__(self, model: Model, length: int, rounds: int, *, dense_layers: Sequence[int], seed: int) -> None:
        self.model, self.length, self.seed = model, length, seed
        self.layers = [layer for layer in model.geometry.layers if layer not in dense_layers]
        self.clock: Clock = clock_of(model.device, torch.get_num_threads())
        self.prefix = filled(model, length, room=WARM + rounds, seed=seed)
        self.token = torch.tensor([self.prefix.context_ids[-1:]], device=model.device)
        self.runners: list[_Runner] = []

    def prepare(self, stacks: Mapping[str, Stack]) -> None:
        """Dense and the stacks, ready for rounds."""
        for name, stack in stacks.items():  # not measured: what a process loads once is no stack's own
            self._built(name, stack, plainly(grouped_matmul), self.layers[:1])
        dense = self._dense()
        self.runners = [dense, *(self._built(name, stack, dense.way, self.layers) for name, stack in stacks.items())]

    def round(self, number: int) -> None:
        """A step of each at the same place, forth or back."""
        before = self._states()
        for runner in self.runners if number % 2 else self.runners[::-1]:
            runner.taken.append(self._step(runner, self.length + WARM + number, before))

    def told(self) -> list[Measured]:
        """What the rounds come to."""
        return [self._told(runner, self.runners[0]) for runner in self.runners]

    def _dense(self) -> _Runner:
        """The faster way to attend to everything."""
        found = []
        for way in PLAIN.values():
            runner = _Runner(name="dense", way=plainly(way))
            with peak(self.model.device) as runner.memory:
                found.append((self._warm(runner), runner))
        return min(found, key=lambda pair: pair[0])[1]

    @torch.inference_mode()
    def _built(self, name: str, stack: Stack, way: Way, layers: Sequence[int]) -> _Runner:
        """A stack that has read the cache of some layers, and whose observers have seen their rows; others go `way`."""
        runner = _Runner(name=name, stack=stack, way=way)
        with peak(self.model.device) as runner.memory:
            begin = self.clock()
            watched = min(_watched(stack), self.length // 2)
            runner.states = {layer: self._state(stack, layer, watched) for layer in layers}
            runner.build_seconds = self.clock() - begin
            for layer, state in runner.states.items():
                self._watch(state, layer, watched)
            self._warm(runner)
        return runner

    def _state(self, stack: Stack, layer: int, watched: int) -> StackState:
        """What a stack holds of the keys of a layer, but for the last `watched`."""
        k, v = self.prefix.keys_values(layer)
        end = self.length - watched
        state = stack.new_state(layer=layer, seed=self.seed)
        state.append(k[:, :, :end], v[:, :, :end])
        state.freeze()
        return state

    def _watch(self, state: StackState, layer: int, watched: int) -> None:
        """The rows of the last `watched` keys, with queries by chance."""
        k, v = self.prefix.keys_values(layer)
        noise, new = torch.Generator().manual_seed(self.seed), slice(state.length, self.length)
        q = torch.randn(1, self.model.geometry.num_heads, watched, k.shape[3], generator=noise).to(k)
        state.append(k[:, :, new], v[:, :, new])
        if watched:
            state.observe(q, k, v)

    def _warm(self, runner: _Runner) -> float:
        """The first steps; the least seconds of those that do not look at what is chosen."""
        before, taken = self.prefix.states, []
        for number in range(WARM):
            taken.append(self._step(runner, self.length + number, before, look=number == WARM - 1).total)
            before = self._states()
        return min(taken[:-1])

    def _states(self) -> list[State]:
        """What layers hold beside keys and values, now."""
        return [held(layer) for layer in self.prefix.cache.layers]

    @torch.inference_mode()
    def _step(self, runner: _Runner, at: int, before: Sequence[State], *, look: bool = False) -> Parts:
        """One token after `at` others."""
        for layer, state in zip(self.prefix.cache.layers, before, strict=True):
            restore(layer, state, at)
        timed = Timed(way=runner.way, clock=self.clock, states=runner.states, looks=look)
        longest = self.length + self.prefix.room
        with fixed_frequencies(self.model.hf, longest), attached(self.model.hf, timed):
            begin = self.clock()
            self.model.hf(input_ids=self.token, past_key_values=self.prefix.cache, use_cache=True, logits_to_keep=1)
            seconds = self.clock() - begin
        if timed.calls != len(self.model.geometry.layers):
            raise SparseNeverRan(
                f"sparse attention never ran: {timed.calls} calls of attention in a step of "
                f"{len(self.model.geometry.layers)} layers"
            )
        runner.seen = timed if look else runner.seen
        return timed.parts.plus(Parts(rest=seconds - timed.parts.total))

    def _told(self, runner: _Runner, dense: _Runner) -> Measured:
        """The same of one."""
        seen, taken = runner.seen, runner.taken
        assert seen is not None
        density, kv_density = (fmean(shares) if shares else 1.0 for shares in (seen.density, seen.kv_density))
        aux_bits = runner.stack.aux_bits(self.model.geometry, self.length) if runner.stack else 0.0
        parts = map(median, zip(*(one.values for one in taken), strict=True))
        added = runner.memory.added
        return Measured(
            name=runner.name,
            length=self.length,
            parts=Parts(**dict(zip(NAMES, parts, strict=True))),
            step=median(one.total for one in taken),
            against_dense=median(other.total / one.total for one, other in zip(taken, dense.taken, strict=True)),
            density=density,
            kv_density=kv_density,
            aux_bits=aux_bits,
            bytes_read=self._bytes(kv_density, aux_bits, len(runner.states)),
            build_seconds=runner.build_seconds,
            peak_bytes=None if added is None or dense.memory.before is None else dense.memory.before + added,
            text_tokens=text_tokens(self.model, self.length),
        )

    def _bytes(self, kv_density: float, aux_bits: float, layers: int) -> float:
        """What a step reads of keys, values and index: so much in some layers, everything in the others."""
        shape = self.model.geometry
        key = 2 * shape.head_dim * self.model.hf.dtype.itemsize
        one, all_keys = (bytes_per_step(self.length, *shares, key) for shares in ((kv_density, aux_bits), (1.0, 0.0)))
        return shape.num_kv_heads * (layers * one + (len(shape.layers) - layers) * all_keys)


def _watched(stack: Stack) -> int:
    """Rows after which the stages that watch have seen all that they ask for."""
    return max((int(getattr(stage, "window_size", 0)) for stage in stack.stages if stage.watches), default=0)
