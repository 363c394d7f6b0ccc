"""A stack of stages, and what it remembers of one (example, layer)."""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Self, cast

import torch
from torch import Tensor

from sahub.attention import per_layer
from sahub.attention.budgets import Density, at_layer, is_list
from sahub.attention.buffers import Growing
from sahub.attention.call import Call, Geometry
from sahub.attention.leads import Leads
from sahub.attention.rows import rows_of, says_nothing
from sahub.attention.selection import Kind, Selection
from sahub.attention.shared import Keys
from sahub.attention.stage import Index, Stage, Taking, Watching
from sahub.errors import ConfigError


@dataclass(frozen=True)
class Stack:
    """Ordered stages; each only adds keys to what the earlier ones kept.

    density  the budget that `of_budget` sizes are shares of: a share of the valid keys, or one per layer
    """

    stages: tuple[Stage, ...]
    density: Density | None = None
    _leads: Leads = field(default_factory=Leads, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if not self.stages:
            raise ConfigError("stages=(): must hold at least one stage")

    @property
    def is_dense(self) -> bool:
        """Whether the configuration itself says that every key is kept."""
        return any(stage.keeps_all for stage in self.stages)

    @property
    def differs_by_layer(self) -> bool:
        """Whether it has budgets, or stages, that are not the same in every layer: else layers can be one batch."""
        lists = is_list(self.density) or any(any(per_layer.lists_of(stage)) for stage in self.stages)
        return lists or not all(stage.any_layer for stage in self.stages)

    def check(self, geometry: Geometry) -> None:
        """Raise ConfigError for fields or files that a model of this geometry cannot have, as `Method.field=...`."""
        for stage in self.stages:
            try:
                per_layer.check(stage, geometry.num_layers)
                stage.check(geometry)
            except ConfigError as error:
                raise ConfigError(f"{type(stage).__name__}.{error}") from error

    def aux_bits(self, geometry: Geometry, num_keys: int) -> float:
        """Index bits read per key and KV head in one decode step over num_keys keys, all stages together."""
        return sum(stage.aux_bits(geometry, num_keys) for stage in self.stages)

    def index_keys(self) -> tuple[Hashable | None, ...]:
        """One per stage: what its index depends on, budgets aside (None = no index). Equal keys may share an index."""
        return tuple(stage.index_key() for stage in self.stages)

    def new_state(
        self,
        *,
        layer: int,
        seed: int = 0,
        example: int = 0,
        indexes: Sequence[Index | None] | None = None,
        valid: Tensor | None = None,
        length: int = 0,
    ) -> "StackState":
        """State of one (example, layer): empty, or resumed from what was built of `length` keys before.

        indexes  one per stage as `StackState.indexes` has them; they are forked, never written
        valid    bool [b, length]: which of those keys are valid (None = all)
        """
        state = StackState(self, layer, seed, example)
        if indexes is not None:
            state.resume(indexes, valid, length)
        return state


class StackState:
    """The indexes of a stack for one (example, layer), fed key by key and asked row by row."""

    def __init__(self, stack: Stack, layer: int, seed: int = 0, example: int = 0) -> None:
        self.stack = stack
        self.layer, self.seed, self.example = layer, seed, example
        self.length = 0  # keys appended so far, padding included
        self._density = at_layer(stack.density, layer)
        self._stages = tuple(per_layer.at(stage, layer) for stage in stack.stages)
        self._valid: Growing | None = None  # bool [b, length]; None = all valid
        self._indexes: dict[Hashable, Index] = {}
        for stage in stack.stages:
            if (key := stage.index_key()) is not None and key not in self._indexes:
                self._indexes[key] = stage.new_index(layer=layer, seed=seed, example=example)

    @property
    def indexes(self) -> tuple[Index | None, ...]:
        """One per stage, None where the stage has none; stages with the same index_key share one."""
        return tuple(None if key is None else self._indexes[key] for key in self.stack.index_keys())

    @property
    def valid(self) -> Tensor | None:
        """bool [b, length]: which keys were valid when they were appended; None = all."""
        return None if self._valid is None else self._valid.data

    def resume(self, indexes: Sequence[Index | None], valid: Tensor | None, length: int) -> None:
        """Take over forks of indexes that were built of the same `length` keys by a stack with the same index_keys."""
        for key, index in zip(self.stack.index_keys(), indexes, strict=True):
            if key is None:
                continue
            if index is None or index.length != length:
                found = "no index" if index is None else f"an index of {index.length} keys"
                raise ConfigError(f"indexes: {found} for {key}, must hold {length} keys")
            self._indexes[key] = index.fork()
        self.length = length
        self._note_valid(valid, 0)

    def append(self, k_new: Tensor, v_new: Tensor, valid_new: Tensor | None = None) -> None:
        """Take n more keys [b, g, n, d], values [b, g, n, dv] and their validity bool [b, n] (None = all valid)."""
        if k_new.shape[2] == 0:
            return
        if valid_new is not None and self._valid is None and says_nothing(valid_new):
            valid_new = None
        for index in self._indexes.values():
            index.append(k_new, v_new, valid_new)
        start, self.length = self.length, self.length + k_new.shape[2]
        if valid_new is None and self._valid is not None:
            valid_new = self._valid.data.new_ones(k_new.shape[0], k_new.shape[2])
        self._note_valid(valid_new, start)

    def freeze(self) -> None:
        """End the prefix: what indexes learn from it is fixed from here on."""
        for index in self._indexes.values():
            index.freeze()

    def truncate(self, length: int, k: Tensor, v: Tensor, valid: Tensor | None = None) -> None:
        """Become exactly what the state was at `length` keys; k and v hold at least those."""
        if length > self.length:
            raise ConfigError(f"length={length}: must be at most the {self.length} keys that were appended")
        valid = self.valid if valid is None else valid
        for index in self._indexes.values():
            index.truncate(length, k, v, valid)
        self.length = length
        if self._valid is not None:
            self._valid.truncate(length)

    def fork(self) -> Self:
        """An independent copy; cheap, buffers are copied when one of the two writes."""
        twin = type(self)(self.stack, self.layer, self.seed, self.example)
        twin.length, twin._valid = self.length, None if self._valid is None else self._valid.fork()
        twin._indexes = {key: index.fork() for key, index in self._indexes.items()}
        return twin

    def take(self, rows: Tensor) -> Self:
        """An independent copy of some of its sequences, int64 [n], all of whose keys are valid; one may come twice."""
        assert self._valid is None
        twin = self.fork()
        twin._indexes = {key: cast(Taking, index).take(rows) for key, index in self._indexes.items()}
        return twin

    @torch.no_grad()
    def select(
        self,
        q: Tensor,
        k: Keys,
        v: Keys,
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
        softcap: float | None = None,
        step: int = 0,
    ) -> Selection:
        """The keys of q's rows: q [b, h, q, d] at the end of k [b, g, k, d], v [b, g, k, dv], all of them appended.

        mask     None (as appended) | bool [b, k] | bool [b, 1, q, k], True = valid
        softcap  bound of the logits, for what counts shares of the softmax; see `attend`
        Equal to feeding the rows one by one, each with the indexes as they were then.
        """
        call = self._call(q, k, v, mask, scale=scale, softcap=softcap, step=step)
        self._observe(call)
        taken, num = self.stack._leads.of(call, self._stages)
        for stage, index in zip(self._stages[num:], self.indexes[num:], strict=True):
            if taken.kind is not Kind.ALL:
                taken = taken.then(stage.add(call, taken, index))
        return taken

    def observe(
        self,
        q: Tensor,
        k: Keys,
        v: Keys,
        *,
        mask: Tensor | None = None,
        scale: float | None = None,
        softcap: float | None = None,
    ) -> None:
        """Show rows that attend to everything to the stages that watch; see `select`."""
        if any(stage.watches for stage in self.stack.stages):
            self._observe(self._call(q, k, v, mask, scale=scale, softcap=softcap, step=0))

    def _observe(self, call: Call) -> None:
        watching = [index for stage, index in zip(self.stack.stages, self.indexes, strict=True) if stage.watches]
        for index in dict.fromkeys(watching):  # stages may share one
            cast(Watching, index).observe(call)

    def _call(
        self,
        q: Tensor,
        k: Keys,
        v: Keys,
        mask: Tensor | None,
        *,
        scale: float | None,
        softcap: float | None,
        step: int,
    ) -> Call:
        if k.shape[2] != self.length:
            raise ConfigError(f"k has {k.shape[2]} keys, {self.length} were appended: append all keys before selecting")
        if mask is not None and mask.dim() == 2 and self._valid is None and says_nothing(mask):
            mask = None
        rows = rows_of(q, k, self.valid if mask is None else mask)
        return Call(
            q=q,
            k=k,
            v=v,
            scale=q.shape[-1] ** -0.5 if scale is None else scale,
            softcap=softcap,
            rows=rows,
            valid=self.valid,
            density=self._density,
            layer=self.layer,
            seed=self.seed,
            example=self.example,
            step=step,
        )

    def _note_valid(self, valid_new: Tensor | None, start: int) -> None:
        if valid_new is not None and self._valid is None:
            self._valid = Growing(axis=1)
            self._valid.append(valid_new.new_ones(valid_new.shape[0], start))
        if valid_new is not None and self._valid is not None:
            self._valid.append(valid_new)
