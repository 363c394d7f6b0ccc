"""The units of a validation on Ray's workers: stacks over one request, handed out in order to whoever is free."""

import time
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

import ray

from sahub.compute.ray_calls import GRACE_S, LIVES, NO_ANSWER, cause_of, death
from sahub.compute.ray_slots import Slot, Slotted
from sahub.compute.worker import Batch, nothing
from sahub.engine.outcome import Outcome, failed, joined, out_of_time


@dataclass(frozen=True, kw_only=True)
class _Unit:
    request: int
    stacks: tuple[int, ...]
    life: int = 1


@dataclass
class Units:
    """One batch on its way. A stack that failed over one request is not run over the later ones."""

    workers: Slotted
    batch: Batch
    done: dict[tuple[int, int], Outcome] = field(default_factory=dict)  # by request and stack

    def outcomes(self) -> list[Outcome]:
        """The outcome of every stack, as if its requests had run one after the other."""
        batch, slots = self.batch, self.workers.slots
        stacks = tuple(range(len(batch.attentions)))
        self.spent = list(batch.spent) or [0.0] * len(stacks)  # seconds
        self.failed_at = [len(batch.requests)] * len(stacks)  # the first request that a stack failed over
        self.left = [len(stacks)] * len(batch.requests)
        self.waiting = deque(_Unit(request=number, stacks=stacks) for number in range(len(batch.requests)))
        self.free = list(slots[: batch.max_concurrent or len(slots)])
        self.running: dict[Any, tuple[_Unit, Slot, float]] = {}
        while self.waiting or self.running:
            while self.waiting and self.free:
                self._hand_out(self.waiting.popleft())
            if self.running:
                self._take()
        parts = [[self.done[request, stack] for stack in stacks] for request in range(len(batch.requests))]
        return joined(batch.attentions, parts, batch.plan.timeout_s)

    def _hand_out(self, unit: _Unit) -> None:
        """Give a unit to a free worker, without the stacks that are out already."""
        batch, most = self.batch, self.batch.plan.timeout_s
        stacks = []
        for stack in unit.stacks:
            if self.failed_at[stack] < unit.request or self.spent[stack] > most:
                self._note(unit.request, stack, failed(batch.attentions[stack], out_of_time(most)))
            else:
                stacks.append(stack)
        if not stacks:
            return
        asked = replace(
            batch,
            requests=[batch.requests[unit.request]],
            attentions=[batch.attentions[stack] for stack in stacks],
            spent=[self.spent[stack] for stack in stacks],
            on_request=nothing,
        )
        slot = self.free.pop()
        ref = slot.handle.evaluate.remote(asked, batch.until - time.monotonic())
        hung = time.monotonic() + sum(most - self.spent[stack] for stack in stacks) + GRACE_S
        self.running[ref] = replace(unit, stacks=tuple(stacks)), slot, hung

    def _take(self) -> None:
        """Wait until a unit ends, or until a worker counts as hung."""
        wait = min(hung for _, _, hung in self.running.values()) - time.monotonic()
        ready, _ = ray.wait(list(self.running), num_returns=1, timeout=min(max(0.0, wait), 1e6))
        now = time.monotonic()
        for ref in ready or [ref for ref, (_, _, hung) in self.running.items() if hung <= now]:
            unit, slot, _ = self.running.pop(ref)
            try:
                outcomes, slot.counters = ray.get(ref, timeout=None if ready else 0)
            except ray.exceptions.GetTimeoutError:
                self._lost(unit, slot, NO_ANSWER)
            except ray.exceptions.RayTaskError as error:
                raise cause_of(error) from None
            except ray.exceptions.RayError as error:
                self._lost(unit, slot, f"killed worker: {death(error)}")
            else:
                for stack, outcome in zip(unit.stacks, outcomes, strict=True):
                    self._note(unit.request, stack, outcome)
            self.free.append(slot)

    def _lost(self, unit: _Unit, slot: Slot, why: str) -> None:
        """Do a unit again, each stack by itself: one of them may be what costs workers their lives."""
        self.workers.replace(slot, why)
        if len(unit.stacks) > 1:
            self.waiting.extendleft(_Unit(request=unit.request, stacks=(one,)) for one in reversed(unit.stacks))
        elif unit.life < LIVES and why != NO_ANSWER:
            self.waiting.appendleft(replace(unit, life=unit.life + 1))
        else:
            [stack] = unit.stacks
            self._note(unit.request, stack, failed(self.batch.attentions[stack], why))

    def _note(self, request: int, stack: int, outcome: Outcome) -> None:
        self.done[request, stack] = outcome
        self.spent[stack] += outcome.seconds
        if outcome.state != "complete":
            self.failed_at[stack] = min(request, self.failed_at[stack])
        self.left[request] -= 1
        if not self.left[request]:
            self.batch.on_request()
