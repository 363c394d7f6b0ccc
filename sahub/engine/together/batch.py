"""Questions of one context answered as one batch: weights, and the keys of the context, are read once for all of them.

All have as many tokens at every pass: the first takes as many of each question as the shortest has, every later one the
next token of each, be it of the question or of the answer. So nothing is padded, and each row sees what it sees alone.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import Tensor

from sahub.engine.call_stats import Inputs, Tally, by_sequence
from sahub.engine.contexts.prefix import Prefix
from sahub.engine.forward import Answered, OutOfTime, largest
from sahub.engine.hook import Hook
from sahub.engine.model import Model
from sahub.engine.routing import attached
from sahub.engine.together.cache import shared_cache
from sahub.errors import SahubError

MOST = 8  # questions at once: each has a copy of the indexes
SPREAD = 32  # tokens that the longest of them has more than the shortest: they pass the model one by one
PHASES = ("question", "decode")


def batches(questions: Sequence[Sequence[int]]) -> list[list[int]]:
    """The numbers of questions that are answered together: of about as many tokens."""
    found: list[list[int]] = []
    for number in sorted(range(len(questions)), key=lambda one: len(questions[one])):
        last = found[-1] if found else []
        if last and len(last) < MOST and len(questions[number]) <= len(questions[last[0]]) + SPREAD:
            last.append(number)
        else:
            found.append([number])
    return found


@dataclass
class Together:
    """Sequences that go on from a prefix: what their layers are routed to. `hooks`: one each, for what is counted."""

    model: Model
    prefix: Prefix
    hooks: list[Hook]
    room: int  # tokens of the longest question and its answer
    phases: list[str] = field(default_factory=list)  # of those that are left, in this pass
    calls: dict[tuple[int, str], Counter[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.alive = list(range(len(self.hooks)))
        self.cache = shared_cache(self.prefix.cache, batch=len(self.alive), room=self.room)
        first = self.first = self.hooks[0]
        self.states = {layer: self.prefix.state(first.stack, layer, first.seed) for layer in first.layers}
        self.calls = {(one, phase): Counter() for one in self.alive for phase in PHASES}
        self._sums: dict[int, Tensor] = {}  # fp64 [places, 6] of each layer
        self._widths: dict[int, int] = {}  # elements of a row's output
        self._take([0] * len(self.hooks))

    def forward(self, ids: list[list[int]], phases: list[str]) -> Tensor:
        """Logits fp32 [b, vocabulary] after the next tokens of each, as many for all."""
        self.phases = phases
        self.dense = [phase in self.first.dense_phases for phase in phases]
        keys = [*zip(self.alive, phases, strict=True)]
        every = self.first.measure
        self.measured = [
            bool(every) and (phase == "question" or self.calls[one, phase]["calls"] % every == 0) for one, phase in keys
        ]
        for key, is_measured in zip(keys, self.measured, strict=True):
            self.calls[key].update(calls=1, rows=len(ids[0]), measured=is_measured * len(ids[0]))
        self.places = [one + len(self.hooks) * PHASES.index(phase) for one, phase in keys]
        chunk = torch.tensor(ids, device=self.model.device)
        output = self.model.hf(input_ids=chunk, past_key_values=self.cache, use_cache=True, logits_to_keep=1)
        logits: Tensor = output.logits[:, -1].float()
        return logits

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """See sahub.engine.routing.Attends; the keys of `call` are those after the prefix."""
        if call.mask is not None:
            raise SahubError(
                f"layer {layer} does not see all earlier tokens: its questions cannot be answered together"
            )
        keys, values = self.cache.layers[self.prefix.shared.get(layer, layer)].keys_values()
        call = replace(call, key=cast(Tensor, keys), value=cast(Tensor, values))  # what `attend` takes, too
        if layer in self.first.dense_layers:
            return call.dense()
        state = self.states[layer]
        new = slice(state.length, keys.shape[2])
        state.append(keys[:, :, new], values[:, :, new])
        if all(self.dense):
            state.observe(call.query, keys, values, **call.formula)
            return call.dense()
        selection = state.select(call.query, keys, values, **call.formula)
        output, kept = call.sparse(selection), by_sequence(selection)
        errors = kept.new_zeros(len(self.alive), 2)
        if any(self.measured) or any(self.dense):
            dense = call.dense()
            both = torch.stack([output.float() - dense.float(), dense.float()]).square().sum((2, 3, 4)).double()
            errors = both.T * torch.tensor(self.measured, device=both.device)[:, None]
            output = torch.where(torch.tensor(self.dense, device=both.device)[:, None, None, None], dense, output)
        self._widths[layer] = output[0, 0].numel()
        empty = kept.new_zeros(len(PHASES) * len(self.hooks), 6)
        numbers = torch.cat([kept * call.query.shape[2], errors], dim=1)
        self._sums.setdefault(layer, empty).index_add_(0, torch.tensor(self.places, device=kept.device), numbers)
        return output

    def keep(self, rows: list[int]) -> None:
        """Let go of all but these of those that are left."""
        if len(rows) == len(self.alive):
            return
        self.alive = [self.alive[row] for row in rows]
        for layer in self.cache.layers:
            layer.keep(torch.tensor(rows, device=layer.prefix.keys.device))
        self._take(rows)

    def _take(self, rows: list[int]) -> None:
        for layer, state in self.states.items():
            self.states[layer] = state.take(torch.tensor(rows, device=self.prefix.keys_values(layer)[0].device))

    def verify(self) -> None:
        """Give each hook its tallies, and let it compare them with the passes. Raises SparseNeverRan."""
        for layer, sums in self._sums.items():
            for place, numbers in enumerate(sums.tolist()):
                phase, one = divmod(place, len(self.hooks))
                known = self.calls[one, PHASES[phase]]
                if known["calls"] and PHASES[phase] not in self.first.dense_phases:
                    self.hooks[one].tallies[layer, PHASES[phase]] = Tally(
                        calls=known["calls"],
                        rows=known["rows"],
                        elements=known["measured"] * self._widths[layer],
                        **dict(
                            zip(("density", "kv_density", "selected", "bare", "error", "norm"), numbers, strict=True)
                        ),
                    )
        for one, hook in enumerate(self.hooks):
            hook.verify({phase: self.calls[one, phase]["calls"] for phase in PHASES if self.calls[one, phase]["calls"]})


@torch.inference_mode()
def decode(
    batch: Together,
    questions: Sequence[list[int]],
    most: Sequence[int],
    *,
    line_stop: int | None = None,
    deadline: float | None = None,
) -> list[Answered]:
    """Greedy answers of at most so many tokens each, as Session.generate has them.

    The seconds of each are its share of every pass that it was in. Raises OutOfTime.
    """
    answers, seconds = [list[int]() for _ in questions], [0.0] * len(questions)
    end, begin = min(map(len, questions)), time.perf_counter()
    ids, phases = [one[:end] for one in questions], ["question"] * len(questions)
    with attached(batch.model.hf, batch):
        while True:
            logits = batch.forward(ids, phases)
            asked = [end >= len(questions[one]) for one in batch.alive]
            left = _told(batch, logits, asked, answers, most=most, line_stop=line_stop)
            now = time.perf_counter()
            for one in batch.alive:
                seconds[one] += (now - begin) / len(batch.alive)
            begin = now
            if not left:
                break
            if deadline is not None and time.monotonic() > deadline:
                raise OutOfTime(f"after {max(map(len, answers))} of at most {max(most)} tokens")
            batch.keep(left)
            phases = ["question" if end < len(questions[one]) else "decode" for one in batch.alive]
            ids = [[(questions[one] + answers[one])[end]] for one in batch.alive]
            end += 1
    batch.verify()
    each = zip(answers, batch.hooks, seconds, strict=True)
    return [Answered(ids=answer, hook=hook, seconds=spent) for answer, hook, spent in each]


def _told(
    batch: Together,
    logits: Tensor,
    asked: list[bool],
    answers: list[list[int]],
    *,
    most: Sequence[int],
    line_stop: int | None,
) -> list[int]:
    """Add the next token to the answers of those that were asked; which rows go on."""
    stops = batch.model.stop_ids if line_stop is None else batch.model.stop_ids | {line_stop}
    best, left = logits.argmax(-1).tolist(), []
    for row, (one, is_asked) in enumerate(zip(batch.alive, asked, strict=True)):
        answer = answers[one]
        if is_asked:
            first = line_stop is not None and not answer
            answer.append(largest(logits[row, None], stops) if first else best[row])
            batch.model.counters.generated_tokens += 1
        if not is_asked or not (answer[-1] in stops or len(answer) == most[one]):
            left.append(row)
    return left
