"""What a worker would hold in memory: weights, contexts, and what is made of them on the way."""

from collections.abc import Hashable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sahub.attention.call import Geometry
from sahub.attention.stack import Stack
from sahub.builders.space import overrides_of
from sahub.config.cell import Cell
from sahub.engine.contexts.prefill import tokens_at_once
from sahub.engine.contexts.prefix import INDEX_SETS
from sahub.engine.traces import TRACES_BYTES
from sahub.errors import SahubError
from sahub.models import gguf
from sahub.models.reading import read_config
from sahub.models.supported import geometry, reads_at_most, shared_keys, text_of
from sahub.models.weights import GGUF, files_of
from sahub.search.generations import at_random
from sahub.search.objective import fidelity_of, reads_traces
from sahub.search.trial import Limits, attention_of, space_of_cell

_HIDDEN, _INNER = 9, 4  # vectors of a token that are held in a pass: of the model's width, and of its MLP's
_COPY = 1.25  # of an index: that which a question appends to, which has room for a quarter more
_MANY = 1000  # contexts, where their number is not limited
_DRAWN = 4 * INDEX_SETS  # points of a batch, at most, that are looked at
_TRIED = 1 << 23  # numbers in keys, at most, of which an index is made to see what it takes
_LOOPS = 104 << 20  # bytes: the compiler of the loops, and what it made
_WRITING = 50 << 20  # bytes: what answers leave behind, and results and their pictures take at the end
_SEARCHING = 40 << 20  # bytes: the sampler, and what batches of trials leave behind
_SEEN = 2  # times a trace: it, what its dense softmax said, and indexes that are larger than the builder's own


@dataclass(frozen=True, kw_only=True)
class Memory:
    """Bytes of a worker.

    weights   as they are run
    contexts  keys and values of the contexts of all phases, as far as there is room
    work      indexes of the builder's own stack and of what a search holds beside it, and traces where the cell
              replays; beside them what is more: a pass over a context, or the writing of results
    """

    weights: int
    contexts: int
    work: int

    @property
    def together(self) -> int:
        """All of it."""
        return self.weights + self.contexts + self.work


def memory_of(cell: Cell) -> Memory:
    """Of a cell's model, contexts and builder. Raises SahubError where the model cannot be read."""
    settings, config = cell.settings, config_of(cell)
    shape, width = geometry(config), _width(_kind(cell, config))
    layers = len(shape.layers) - len(shared_keys(config).keys() & set(shape.layers))
    token = 2 * layers * shape.num_kv_heads * shape.head_dim * width
    each = {
        phase: (contexts_of(cell, phase) or _MANY, longest(cell, getattr(settings, phase))) for phase in settings.phases
    }
    num, most = sum(one for one, _ in each.values()), max(length for _, length in each.values())
    held = _held(cell, [*each.values()], token)
    tried, searches = min(most, _TRIED // (shape.num_kv_heads * shape.head_dim)), "search" in each
    own = _stack(cell, shape)
    index = layers * _index_bytes(own, shape, width, tried)  # of a token
    sets = max(1.0, _sets(cell, own, shape, width, max(1, tried // INDEX_SETS))) if searches else 1.0
    decided = 1 + searches  # sets of indexes: the builder's own, and the winner's
    stays = _LOOPS + _SEARCHING * searches + int((_COPY + decided) * most * index)
    stays += _traces(cell, each, token, sets * index)
    if searches:  # those of a batch are held before the contexts that come after the trials
        trials = settings.search.max_requests, each["search"][1]
        stays += max(0, int((sets - decided) * trials[1] * index) - (held - _held(cell, [trials], token)))
    passing = _passing(config) * min(most, tokens_at_once("cpu" if _is_cpu(settings.model.device) else "cuda")) * width
    work = max(passing, stays + max(_WRITING, passing * (num > 1)))  # the loops come after the first pass
    return Memory(weights=_weights(cell, config), contexts=held, work=work)


def contexts_of(cell: Cell, phase: str) -> int | None:
    """How many a phase reads at most, those of the last decision among them; None where nobody says."""
    if phase == "search":
        return int(cell.settings.search.max_requests + cell.settings.search.decide)
    return cell.settings.validate.max_requests or cell.settings.task.options.get("num_examples")


def _held(cell: Cell, contexts: Sequence[tuple[int, int]], token: int) -> int:
    """Bytes of contexts (num, length) as far as there is room, always of the one in use."""
    every = sum(num * length * token for num, length in contexts)
    return max(*(length * token for _, length in contexts), min(cell.settings.compute.prefix_mib << 20, every))


def _traces(cell: Cell, each: Mapping[str, tuple[int, int]], token: int, index: float) -> int:
    """Bytes of the traces of contexts, of which there are (num, length) by phase, and of what is built from them.

    All leave one where the objective reads traces, else those that a search replays; one is held whatever it takes.
    """
    settings, traced = cell.settings, [*each.values()]
    if not reads_traces(settings.objective):
        replays = "search" in each and fidelity_of(settings) == "replay"
        traced = [(settings.search.max_requests, each["search"][1])] if replays else []
    known = [(num, length, min(length * token, settings.protocol.trace_mib << 20)) for num, length in traced]
    every = sum(num * (_SEEN * trace + int(index * length)) for num, length, trace in known)
    return max(min(TRACES_BYTES, every), max((trace for _, _, trace in known), default=0))


def config_of(cell: Cell) -> Any:
    """The configuration of a cell's model."""
    model = cell.settings.model
    return read_config(model.path, model.revision, model.trust_remote_code)


def longest(cell: Cell, limits: Limits) -> int:
    """Tokens of the longest context: what is asked for, or what the model can read."""
    most = cell.settings.model.max_context_length or reads_at_most(config_of(cell))
    return min(limits.max_context_length, most or limits.max_context_length)


def _passing(config: Any) -> int:
    """Numbers that are held of a token while it passes."""
    text = text_of(config)
    inner = getattr(text, "intermediate_size", None) or 4 * text.hidden_size
    return int(_HIDDEN * text.hidden_size + _INNER * inner)


def _stack(cell: Cell, shape: Geometry, overrides: Sequence[str] = ()) -> Stack | None:
    """None for dense attention, and where it cannot be built before, or is none for such a model."""
    with suppress(SahubError):
        stack = attention_of(cell, overrides).stack
        if stack is not None:
            stack.check(shape)
        return stack
    return None


def _sets(cell: Cell, own: Stack | None, shape: Geometry, width: int, length: int) -> float:
    """What the indexes of a batch of trials take together, in indexes of the builder's `own` stack."""
    known: dict[Hashable, Stack] = {}  # stacks with equal ones share them
    for point in at_random(space_of_cell(cell), cell.settings, min(cell.settings.search.batch, _DRAWN)):
        if len(known) == INDEX_SETS:
            break
        stack = _stack(cell, shape, overrides_of(point))
        if stack is not None:
            known[stack.index_keys()] = stack
    every = sum(_index_bytes(stack, shape, width, length) for stack in known.values())
    return every / (_index_bytes(own, shape, width, length) or 1.0)


def _index_bytes(stack: Stack | None, shape: Geometry, width: int, length: int) -> float:
    """Of a layer for each of so many keys."""
    import torch  # only where it is asked

    if stack is None:
        return 0.0
    state, noise = stack.new_state(layer=0), torch.Generator().manual_seed(0)
    keys = torch.randn(1, shape.num_kv_heads, length, shape.head_dim, generator=noise)
    keys = keys.to({4: torch.float32, 8: torch.float64}.get(width, torch.bfloat16))
    state.append(keys, keys)
    state.freeze()
    held = {id(index): getattr(index, "nbytes", 0) for index in state.indexes}
    return sum(held.values()) / length


def _weights(cell: Cell, config: Any) -> int:
    """Bytes of the weights in the type of numbers that they are run in."""
    width, model = _width(_kind(cell, config)), cell.settings.model
    files = files_of(model.path, model.revision)
    stored = sum(Path(file).stat().st_size for file in files if file.suffix in {".safetensors", ".bin"})
    packed = sum(gguf.num_parameters(file) for file in files if file.suffix == GGUF)
    return stored * width // _width(_stored(config)) + packed * width


def _kind(cell: Cell, config: Any) -> str:
    """The type of numbers that a cell's model is run in."""
    asked = cell.settings.model.dtype
    if asked != "auto":
        return asked
    return "float32" if _is_cpu(cell.settings.model.device) else _stored(config)


def _stored(config: Any) -> str:
    return str(getattr(config, "dtype", None) or "float32").removeprefix("torch.")


def _is_cpu(device: str) -> bool:
    import torch  # only where it is asked

    return device == "cpu" or (device == "auto" and not torch.cuda.is_available())


def _width(kind: str) -> int:
    return {"float32": 4, "float64": 8}.get(kind, 2)
