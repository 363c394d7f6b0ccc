"""One model at work: contexts prefilled once, rewound for every question and stack; answers forced or generated."""

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from sahub.attention.call import Geometry
from sahub.attention.stack import Stack
from sahub.engine.contexts.prefill import prefill
from sahub.engine.contexts.prefix import Prefix, number_of
from sahub.engine.contexts.store import PrefixStore, trim
from sahub.engine.forward import Answered, Forward, OutOfTime, Run, largest
from sahub.engine.hook import Hook
from sahub.engine.model import Model
from sahub.engine.record import TRACE_BYTES, record
from sahub.engine.replay import Replayed, replay
from sahub.engine.routing import attached
from sahub.engine.together.batch import Together, batches, decode
from sahub.engine.together.cache import is_shareable
from sahub.engine.trace import Trace
from sahub.engine.traces import TRACES_BYTES, Recent, TraceStore
from sahub.errors import ConfigError, memory_trouble
from sahub.files.journal import numbers_version
from sahub.models.rope import fixed_frequencies, frequencies

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Attention:
    """How question and answer are attended to: a stack (None: the model's own attention) and its protocol."""

    stack: Stack | None = None
    dense_layers: tuple[int, ...] = ()
    dense_question: bool = False  # setup A
    measure: int = 1  # dense output beside the sparse one at every nth call of a phase, 0: never
    replay_rows: str = "answer"  # rows that a replay asks, see sahub.engine.replay
    trace_bytes: int = TRACE_BYTES  # of the trace of a replay
    seed: int = 0

    def check(self, geometry: Geometry) -> None:
        """Raise ConfigError for dense layers that a model does not have, or for all of them."""
        layers, dense = geometry.layers, sorted(set(self.dense_layers))
        if not set(dense) < set(layers):
            which = f"0..{layers[-1]}" if len(layers) == geometry.num_layers else ", ".join(map(str, layers))
            raise ConfigError(f"protocol.dense_layers={dense}: must be in {which}, and not every one of them")
        if self.stack is not None:
            self.stack.check(geometry)


class Session:
    """A loaded model with its prefixes. Not thread-safe: one request at a time."""

    def __init__(
        self,
        model: Model,
        *,
        fingerprint: Any = None,
        prefix_bytes: int = 4 << 30,
        answer_bytes: int = 1 << 30,
        traces: Path | None = None,
        offload: str = "none",
        folder: Path | None = None,
    ) -> None:
        self.model = model
        self.fingerprint = fingerprint  # of its files and of how they are run; None: unknown, traces get no files
        self._prefixes = PrefixStore(prefix_bytes, offload, folder)
        self._traces = TraceStore(TRACES_BYTES, traces if fingerprint else None)
        self._seen: set[tuple[int, ...]] = set()
        self._answers = Recent[Run](answer_bytes)

    def prefix(self, context_ids: tuple[int, ...], room: int, asked: int = 0) -> Prefix:
        """The prefilled context, computed when it is not held.

        asked  tokens of the question that comes first, for models whose rotary frequencies follow the length: for a
               question that needs other ones, the context is prefilled anew when it is asked
        """

        def make() -> Prefix:
            counters = self.model.counters
            counters.contexts += context_ids not in self._seen
            self._seen.add(context_ids)
            counters.prefills += 1
            counters.prefill_tokens += len(context_ids)
            made = prefill(self.model.hf, torch.tensor([context_ids], device=self.model.device), room=room, asked=asked)
            made.example = number_of(context_ids)
            return made

        return self._prefixes.get((context_ids, frequencies(self.model.hf.config, len(context_ids) + asked)), make)

    def dense_answer(
        self,
        prefix: Prefix,
        context_ids: tuple[int, ...],
        question: tuple[int, ...],
        *,
        max_new_tokens: int,
        line_stop: int | None = None,
        deadline: float | None = None,
    ) -> Run:
        """The model's own answer with its own attention, made once per question and kept while there is room."""
        ends: dict[str, Any] = {"max_new_tokens": max_new_tokens, "line_stop": line_stop, "deadline": deadline}
        key = (context_ids, question, max_new_tokens, line_stop)
        return self._answers.get(key, lambda: self.generate(prefix, list(question), Attention(), **ends))

    def within_memory(self, answer: Callable[[bool], Any]) -> Any:
        """What `answer(False)` gives; where memory is out, `answer(True)` once all is given back that can be."""
        try:
            return answer(False)
        except (MemoryError, RuntimeError) as error:
            if memory_trouble(error) is None:
                raise
            log.info("out of memory: once more, with nothing else held")
        self._prefixes.shrink()
        self._answers.clear()
        self._traces.clear()
        if self.model.device.type == "cuda":
            torch.cuda.empty_cache()
        return answer(True)

    @torch.inference_mode()
    def force(self, prefix: Prefix, question: list[int], answer: list[int], attention: Attention) -> Run:
        """Teacher-forced: question and `answer` in one chunk, or in two where the question is dense (setup A)."""
        begin = time.perf_counter()
        with self._request(prefix, len(question), attention) as forward:
            if attention.dense_question:
                first = forward(question, "question", keep=1)
                rest = [forward(answer[:-1], "decode", keep=len(answer) - 1)] if len(answer) > 1 else []
                logits = torch.cat([first, *rest])
            else:
                logits = forward(question + answer[:-1], "question", keep=len(answer))
        return Run(ids=answer, logits=logits, hook=forward.hook, seconds=time.perf_counter() - begin)

    @torch.inference_mode()
    def generate(
        self,
        prefix: Prefix,
        question: list[int],
        attention: Attention,
        *,
        max_new_tokens: int,
        line_stop: int | None = None,
        deadline: float | None = None,
    ) -> Run:
        """Greedy decoding until a stop token, which is kept as the last id, or `max_new_tokens`.

        `line_stop` is one more stop token; with it no answer begins with a stop token (LongBench's rule for samsum).

        Raises OutOfTime once `time.monotonic()` passes `deadline`.
        """
        begin = time.perf_counter()
        ids: list[int] = []
        stops = self.model.stop_ids if line_stop is None else self.model.stop_ids | {line_stop}
        with self._request(prefix, len(question), attention) as forward:
            logits = [forward(question, "question", keep=1)]
            while True:
                ids.append(largest(logits[-1], stops if line_stop is not None and not ids else ()))
                self.model.counters.generated_tokens += 1
                if ids[-1] in stops or len(ids) == max_new_tokens:
                    break
                if deadline is not None and time.monotonic() > deadline:
                    raise OutOfTime(f"after {len(ids)} of at most {max_new_tokens} tokens")
                logits.append(forward(ids[-1:], "decode", keep=1))
        return Run(ids=ids, logits=torch.cat(logits), hook=forward.hook, seconds=time.perf_counter() - begin)

    def batches(self, prefix: Prefix, questions: Sequence[Sequence[int]], attention: Attention) -> list[list[int]]:
        """The numbers of the questions that `generate_together` takes at once: one, where model or stack need that."""
        can = attention.stack is not None and all(stage.batched for stage in attention.stack.stages)
        can = can and is_shareable(prefix.cache) and prefix.frequencies is None and prefix.length > 0
        return batches(questions) if can else [[number] for number in range(len(questions))]

    def generate_together(
        self, prefix: Prefix, questions: Sequence[list[int]], attention: Attention, most: Sequence[int], **ends: Any
    ) -> Sequence[Answered]:
        """`generate` for questions of one of the `batches`, at most so many tokens each."""
        if len(questions) == 1:
            return [self.generate(prefix, questions[0], attention, max_new_tokens=most[0], **ends)]
        prefix = self._right(prefix, len(questions[0]))
        prefix.rewind()
        hooks = [hook for hook in (self._hook(prefix, attention) for _ in questions) if hook]
        room = max(len(question) + num for question, num in zip(questions, most, strict=True))
        return decode(Together(self.model, prefix, hooks, room), questions, most, **ends)

    def trace_of(self, prefix: Prefix, question: list[int], answer: list[int], most: int = TRACE_BYTES) -> Trace:
        """What a dense run of question and `answer` leaves for replay, made once and kept while there is room."""
        turning = frequencies(self.model.hf.config, prefix.length + len(question))
        key = repr((numbers_version(), self.fingerprint, (prefix.context_ids, question, answer, most, turning)))
        return self._traces.get(key, self.model.device, lambda: self.record(prefix, question, answer, most))

    def record(self, prefix: Prefix, question: list[int], answer: list[int], most: int = TRACE_BYTES) -> Trace:
        """The same, made now and kept by nobody."""
        with self.recording(prefix, len(question)) as prefix:
            return record(self.model, prefix, question, answer, most)

    @contextmanager
    def recording(self, prefix: Prefix, asked: int) -> Iterator[Prefix]:
        """The prefix as a dense run after it needs it, for a question of so many tokens."""
        trim()
        with fixed_frequencies(self.model.hf, prefix.length + asked):
            yield self._right(prefix, asked)

    def replay(self, prefix: Prefix, question: list[int], answer: list[int], attention: Attention) -> Replayed:
        """The stack on the trace of question and `answer`, without the model. Raises as `force`."""
        begin = time.perf_counter()
        attention.check(self.model.geometry)
        assert attention.stack is not None
        asked: dict[str, Any] = {name: getattr(attention, name) for name in ("seed", "dense_layers", "dense_question")}
        asked |= {"rows": attention.replay_rows, "measure_error": attention.measure > 0}
        tallies = replay(self.trace_of(prefix, question, answer, attention.trace_bytes), attention.stack, **asked)
        return Replayed(ids=answer, tallies=tallies, seconds=time.perf_counter() - begin)

    @contextmanager
    def _request(self, prefix: Prefix, asked: int, attention: Attention) -> Iterator[Forward]:
        """Forward passes after a rewound prefix, with frequencies for context and question; then the receipts."""
        hf, prefix = self.model.hf, self._right(prefix, asked)
        prefix.rewind()
        hook = self._hook(prefix, attention)
        forward = Forward(self.model, prefix, hook)
        with fixed_frequencies(hf, prefix.length + asked), ExitStack() as during:
            for one in (hook.after(prefix), attached(hf, hook)) if hook else ():
                during.enter_context(one)
            yield forward
        if hook:
            hook.verify(forward.calls)

    def _right(self, prefix: Prefix, asked: int) -> Prefix:
        """The context, here, with the rotary frequencies of a question of so many tokens: made anew if they differ."""
        if not prefix.is_away and prefix.frequencies == frequencies(self.model.hf.config, prefix.length + asked):
            return prefix
        return self.prefix(prefix.context_ids, prefix.room, asked)

    def _hook(self, prefix: Prefix, attention: Attention) -> Hook | None:
        if attention.stack is None:
            return None
        attention.check(self.model.geometry)
        return Hook(
            stack=attention.stack,
            geometry=self.model.geometry,
            dense_layers=frozenset(attention.dense_layers),
            dense_phases=frozenset({"question"} if attention.dense_question else ()),
            measure=attention.measure,
            seed=attention.seed,
            example=prefix.example,
        )
