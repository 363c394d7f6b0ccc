"""Making traces: one dense run of a question and its answer, and what fits."""

import logging
from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

from sahub.engine.call_stats import Inputs
from sahub.engine.contexts.prefix import Prefix
from sahub.engine.model import Model
from sahub.engine.routing import attached
from sahub.engine.trace import Layers, Trace
from sahub.errors import ConfigError
from sahub.models.supported import shared_keys

log = logging.getLogger(__name__)
FIRST, LAST = 64, 64  # rows of a question that are traced: its beginning, and its end
TRACE_BYTES = 1 << 30  # of a trace: beyond them layers are left out


def bytes_of_layer(tokens: int, rows: int, heads: tuple[int, int], widths: tuple[int, int], itemsize: int) -> int:
    """Bytes that a trace takes for one layer, all else being some hundred.

    tokens * g * (d + dv) * itemsize for keys and values, rows * h * (d * itemsize + dv * 4) for queries and outputs

    heads   of queries and of keys, (h, g);  widths  of keys and values, (d, dv);  itemsize  bytes of the model's dtype
    """
    (h, g), (d, dv) = heads, widths
    return tokens * g * (d + dv) * itemsize + rows * h * (d * itemsize + dv * 4)


def spread(layers: Sequence[int], bytes_each: int, most_bytes: int) -> tuple[int, ...]:
    """As many layers as fit, spread evenly. Raises ConfigError where not one does."""
    num = min(len(layers), most_bytes // bytes_each)
    if not num:
        raise ConfigError(
            f"protocol.trace_mib={most_bytes >> 20}: must be at least {-(-bytes_each >> 20)}, what one layer of this "
            "context takes"
        )
    return tuple(layers[(2 * at + 1) * len(layers) // (2 * num)] for at in range(num))


class _Recorder:
    """Dense attention that hands on what replay needs of some layers, as it lies."""

    def __init__(self, rows: list[int], layers: Sequence[int], take: Callable[[Layers], None]) -> None:
        self._rows, self._layers, self._take = torch.tensor(rows), layers, take

    def attend(self, layer: int, call: Inputs) -> Tensor:
        """See sahub.engine.routing.Attends."""
        output = call.dense()
        if layer not in self._layers:
            return output
        rows = self._rows.to(output.device)
        one = Layers(
            numbers=(layer,),
            scale=call.scale,
            softcap=call.softcap,
            keys=call.key,
            values=call.value,
            queries=call.query[:, :, rows],
            outputs=output[:, rows].float(),
            sinks=None if call.sinks is None else call.sinks[None],
        )
        self._take(one)
        return output


@torch.inference_mode()
def record(
    model: Model, prefix: Prefix, question: list[int], answer: list[int], most_bytes: int = TRACE_BYTES
) -> Trace:
    """One dense run of question and answer after a prefix, through our own attention.

    Layers beyond `most_bytes` are left out. Raises ConfigError where not one fits.
    """
    shape, rows, tokens = model.geometry, _rows(question, answer), prefix.length + len(question) + len(answer) - 1
    keys, values = prefix.keys_values(shape.layers[0])
    widths, heads = (keys.shape[3], values.shape[3]), (shape.num_heads, keys.shape[1])
    layers = spread(shape.layers, bytes_of_layer(tokens, len(rows), heads, widths, keys.itemsize), most_bytes)
    if len(layers) < len(shape.layers):
        log.info("a trace of %d tokens holds %d of %d layers: %s", tokens, len(layers), len(shape.layers), list(layers))
    found: list[Layers] = []
    _run(model, prefix, question + answer[:-1], _Recorder(rows, layers, found.append))
    return _trace(prefix, question, rows, _grouped(found))


@torch.inference_mode()
def record_each(
    model: Model, prefix: Prefix, question: list[int], answer: list[int], take: Callable[[Trace], None]
) -> None:
    """The same run; `take` is given a trace of each layer alone, good until it returns: nothing is copied or kept."""
    rows = _rows(question, answer)
    recorder = _Recorder(rows, model.geometry.layers, lambda one: take(_trace(prefix, question, rows, [one])))
    _run(model, prefix, question + answer[:-1], recorder)


def _rows(question: list[int], answer: list[int]) -> list[int]:
    last = len(question) - 1
    return [row for row in range(len(question) + len(answer) - 1) if not FIRST <= row < last - LAST]


def _run(model: Model, prefix: Prefix, ids: list[int], recorder: _Recorder) -> None:
    prefix.rewind()
    with attached(model.hf, recorder):
        model.hf(
            input_ids=torch.tensor([ids], device=model.device),
            past_key_values=prefix.cache,
            use_cache=True,
            logits_to_keep=0 if shared_keys(model.hf.config) else 1,  # those may pass no more rows than that (0: all)
        )
    prefix.rewind()


def _trace(prefix: Prefix, question: list[int], rows: list[int], groups: list[Layers]) -> Trace:
    return Trace(length=prefix.length, example=prefix.example, question=len(question), rows=tuple(rows), groups=groups)


def _grouped(layers: list[Layers]) -> list[Layers]:
    """Copies of the layers of each shape as one, by number."""
    kinds: dict[Hashable, list[Layers]] = {}
    for one in sorted(layers, key=lambda one: one.numbers):
        tensors = (one.keys, one.values, one.queries, one.sinks)
        shape = tuple(None if x is None else (x.shape, x.dtype, x.device) for x in tensors)
        kinds.setdefault((one.scale, one.softcap, shape), []).append(one)
    return [_joined(alike) for alike in kinds.values()]


def _joined(alike: list[Layers]) -> Layers:
    first = alike[0]
    sinks = [one.sinks for one in alike if one.sinks is not None]
    return Layers(
        numbers=tuple(one.numbers[0] for one in alike),
        scale=first.scale,
        softcap=first.softcap,
        keys=torch.cat([one.keys for one in alike]),
        values=torch.cat([one.values for one in alike]),
        queries=torch.cat([one.queries for one in alike]),
        outputs=torch.cat([one.outputs for one in alike]),
        sinks=torch.cat(sinks) if sinks else None,
    )
