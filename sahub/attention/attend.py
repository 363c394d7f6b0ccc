"""Attention over a selection: softmax(cap(q.k * scale) + log_weight) v, with the row maximum over the kept keys.

cap(x) = softcap * tanh(x / softcap), where a layer has one. A learned sink is one more logit of each head: it takes its
share of the softmax, and has no value.
"""

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from sahub.attention.call import capped
from sahub.attention.gather import row_chunks
from sahub.attention.rows import free_to_read, rows_of
from sahub.attention.selection import Kind, Selection, spread
from sahub.attention.shared import Keys, whole
from sahub.attention.table import Table
from sahub.compiled.parallel import over_units
from sahub.compiled.present import at_hand
from sahub.errors import ConfigError, SahubError

_MANY_ROWS = 8  # from which a product over all keys is worth a mask
_WIDE = 12, 6  # gathering a key, and by a loop, costs about as many times what a key of such a product costs
_LEAST = torch.finfo(torch.float32).min  # added to the logits of keys that were not chosen


def attend(
    q: Tensor,
    k: Keys,
    v: Keys,
    selection: Selection,
    *,
    mask: Tensor | None = None,
    scale: float | None = None,
    softcap: float | None = None,
    sinks: Tensor | None = None,
    backend: str = "gather",
) -> Tensor:
    """Attention output [b, q, h, dv] in q's dtype, computed in fp32; q [b, h, q, d], k [b, g, k, d], v [b, g, k, dv].

    softcap  bounds the logits, before weights and sinks; None = no bound
    sinks    a logit of each query head, [h], that counts in the softmax and has no value; None = no sinks
    backend  `gather` reads only the chosen keys, or many rows that choose much through a mask, a few at a time, and
             holds no tensor of h*q*k elements; `reference` is dense and plain.

    A row without a valid key gives 0. An empty selection raises SahubError; an unknown backend, a softcap that is not
    above 0 and sinks of another shape raise ConfigError.
    """
    if backend not in _BACKENDS:
        raise ConfigError(f"backend={backend}: must be one of {', '.join(_BACKENDS)}")
    softmax = _Softmax(scale=q.shape[-1] ** -0.5 if scale is None else scale, softcap=softcap, sinks=sinks)
    softmax.check(q.shape[1])
    if selection.kind is Kind.NONE:
        raise SahubError(
            "nothing is selected: a stack must keep at least one key of each row (use `dense` to keep all)"
        )
    if mask is not None and mask is not selection.rows.mask:
        selection = _restricted(selection, q, k, mask)
    if selection.kind is Kind.PARTIAL and selection.slots.shape[-1] == 0:
        selection.check()  # rows without a valid key give 0, others may not be empty
        return q.new_zeros(q.shape[0], q.shape[2], q.shape[1], v.shape[-1])
    return _BACKENDS[backend](q, k, v, selection, softmax).to(q.dtype)


@dataclass(frozen=True, kw_only=True)
class _Softmax:
    """What becomes of q.k: scale, bound and sinks of a layer."""

    scale: float
    softcap: float | None
    sinks: Tensor | None

    def check(self, num_heads: int) -> None:
        """Raise ConfigError for numbers that mean nothing."""
        if self.softcap is not None and not self.softcap > 0:
            raise ConfigError(f"softcap={self.softcap}: must be above 0, or None")
        if self.sinks is not None and self.sinks.shape != (num_heads,):
            raise ConfigError(f"sinks {list(self.sinks.shape)}: must be [{num_heads}], a logit of each query head")

    @property
    def is_plain(self) -> bool:
        """Whether it is what torch computes."""
        return self.softcap is None and self.sinks is None

    def logits(self, dots: Tensor) -> Tensor:
        """Logits of q.k, any shape."""
        return capped(dots * self.scale, self.softcap)

    def weights(self, logits: Tensor) -> Tensor:
        """Softmax over the last axis, keys, of logits [b, u, q, h / u, s]; 0 where every logit is -inf."""
        top = logits.amax(dim=-1, keepdim=True)
        sinks = None if self.sinks is None else self.sinks.float().view(1, logits.shape[1], 1, -1, 1)
        top = top if sinks is None else torch.maximum(top, sinks)
        top = top.masked_fill(top == float("-inf"), 0.0)
        weights = torch.exp(logits - top)
        total = weights.sum(dim=-1, keepdim=True)
        total = total if sinks is None else total + torch.exp(sinks - top)
        return weights / total.clamp(min=torch.finfo(torch.float32).tiny)


def _restricted(selection: Selection, q: Tensor, k: Keys, mask: Tensor) -> Selection:
    """The selection without the keys that `mask` forbids."""
    known = selection.rows.mask
    rows = rows_of(q, k, mask)
    if selection.kind is Kind.ALL and known is not None:
        both = [one if one.dim() == 4 else one[:, None, None].expand(-1, 1, q.shape[2], -1) for one in (known, mask)]
        rows = rows_of(q, k, both[0] & both[1])
    bare = Selection.none(rows, selection.num_heads, selection.num_kv_heads)
    if selection.kind is Kind.ALL:
        return bare.all()
    allowed = rows.admits(selection.indices)
    return bare.of(selection.indices, selection.log_weight.masked_fill(~allowed, float("-inf")))


def _reference(q: Tensor, k: Keys, v: Keys, selection: Selection, softmax: _Softmax) -> Tensor:
    """The formula as it is written, on dense tensors."""
    group = q.shape[1] // k.shape[1]
    keys, values = (whole(x).float().repeat_interleave(group, dim=1) for x in (k, v))
    probabilities = selection.probabilities()
    logits = softmax.logits(q.float() @ keys.transpose(-1, -2)) - probabilities.log()
    logits = logits.masked_fill(probabilities == 0, float("-inf"))
    return (softmax.weights(logits[..., None, :])[..., 0, :] @ values).transpose(1, 2)


def _gather(q: Tensor, k: Keys, v: Keys, selection: Selection, softmax: _Softmax) -> Tensor:
    """Read the chosen keys alone, some rows at a time; heads of a group that chose alike read them once."""
    if selection.kind is Kind.ALL:
        return _everything(q, k, v, selection, softmax)
    compiles = _compiles(q, k, v, softmax)
    if _is_wide(selection, compiles):
        return _masked(q, k, v, selection, softmax)
    if compiles:
        return _compiled(q, k, v, selection, softmax)
    units = max(k.shape[1], selection.slots.shape[1])  # blocks that are gathered, each for some heads
    indices, weights = spread(selection.slots, units), spread(selection.weights, units)
    grouped = q.float().unflatten(1, (units, -1)).transpose(2, 3)  # [b, u, q, heads of the unit, d]
    keys, values = Table(k), Table(v)
    out = []
    elements = q.shape[0] * units * max(1, indices.shape[-1]) * max(k.shape[-1], v.shape[-1])
    for part in row_chunks(q.shape[2], elements, q.device):
        slots = indices[:, :, part]
        dots = keys.dots(grouped[:, :, part], keys.places(slots))
        shares = softmax.weights(softmax.logits(dots) + weights[:, :, part, None])
        out.append(values.sums(values.places(slots), shares).transpose(2, 3).flatten(1, 2))
    return torch.cat(out, dim=2).transpose(1, 2)


def _compiles(q: Tensor, k: Keys, v: Keys, softmax: _Softmax) -> bool:
    """Whether chosen keys are read by a compiled loop: in a CPU's memory, of dtypes it knows, no gradients asked."""
    parts = [one if isinstance(one, Tensor) else one.memory for one in (q, k, v)]
    parts += [] if softmax.sinks is None else [softmax.sinks]
    learns = torch.is_grad_enabled() and any(one.requires_grad for one in parts)
    known = k.dtype == v.dtype and k.dtype in (torch.float32, torch.bfloat16)
    return known and free_to_read(q) and not learns and at_hand()


def _compiled(q: Tensor, k: Keys, v: Keys, selection: Selection, softmax: _Softmax) -> Tensor:
    """The same in one pass over keys, and one over values, by a compiled loop."""
    from sahub.compiled.attending import attending  # takes a second to import

    units = max(k.shape[1], selection.slots.shape[1])
    grouped = q.float().unflatten(1, (units, -1)).transpose(2, 3).contiguous()  # [b, u, q, heads of the unit, d]
    (keys, key_places), (values, value_places) = (Table(x).as_numpy() for x in (k, v))
    out = torch.empty(*grouped.shape[:4], v.shape[-1])
    sinks = torch.empty(0) if softmax.sinks is None else softmax.sinks.float().contiguous()
    formula = np.array([softmax.scale, softmax.softcap or 0.0], np.float32)
    slots, weights = (
        spread(x, units).expand(q.shape[0], -1, -1, -1).numpy() for x in (selection.slots, selection.weights)
    )
    given = keys, values, key_places, value_places, slots, weights, formula, sinks.numpy()
    loop, rows = attending("int16" if k.dtype == torch.bfloat16 else "float32"), math.prod(out.shape[:3])
    work = out.numel() * slots.shape[3]
    if not all(over_units(loop, rows, work, grouped.numpy(), *given, out.numpy()).values()):
        raise IndexError(f"a selection holds positions outside the {k.shape[2]} keys")
    return out.permute(0, 2, 1, 3, 4).flatten(2, 3)


def _is_wide(selection: Selection, compiles: bool) -> bool:
    """Whether a product over all keys costs less than to gather the chosen: by counts, from what both cost on a CPU."""
    rows, width = selection.rows, selection.slots.shape[-1]
    heads, units = selection.num_heads, max(selection.num_kv_heads, selection.slots.shape[1])
    return rows.num_rows >= _MANY_ROWS and units * width * _WIDE[compiles] >= heads * rows.num_keys


def _masked(q: Tensor, k: Keys, v: Keys, selection: Selection, softmax: _Softmax) -> Tensor:
    """Over all keys, with the log-weights added to the logits; heads that chose alike share a mask."""
    queries, keys, values = q.float(), k.float(), v.float()
    blocks = []
    for part in row_chunks(selection.rows.num_rows, q.shape[0] * q.shape[1] * k.shape[2], q.device):
        bias = selection.dense_log_weight(part, _LEAST)
        bias = bias if bias.shape[1] == 1 else spread(bias, q.shape[1])
        blocks.append(_over(queries[:, :, part], keys, values, bias, softmax))
    empty = spread((selection.weights == float("-inf")).all(-1, keepdim=True), q.shape[1])
    return torch.cat(blocks, dim=2).masked_fill(empty, 0.0).transpose(1, 2)


def _everything(q: Tensor, k: Keys, v: Keys, selection: Selection, softmax: _Softmax) -> Tensor:
    """Dense attention over the valid keys, some rows at a time, each chunk over the keys that its last row can see."""
    rows = selection.rows
    queries, keys, values = q.float(), k.float(), v.float()
    blocks = []
    for part in row_chunks(rows.num_rows, q.shape[0] * q.shape[1] * k.shape[2], q.device):
        end = rows.num_keys - rows.num_rows + part.stop
        visible = rows.visible(part)
        mask = None if visible is None else visible[:, None, :, :end]
        blocks.append(_over(queries[:, :, part], keys[:, :, :end], values[:, :, :end], mask, softmax))
    out = torch.cat(blocks, dim=2)
    if rows.mask is not None:
        out = out.masked_fill((rows.counts == 0)[:, None, :, None], 0.0)
    return out.transpose(1, 2)


def _over(q: Tensor, k: Keys, v: Keys, mask: Tensor | None, softmax: _Softmax) -> Tensor:
    """Attention to the keys of a mask, [b, h, q, dv]: by torch, where it has that.

    mask  bool [b or 1, 1, q, k], or fp32 [b, h or 1, q, k] that is added to the logits; None = all
    """
    if softmax.is_plain and isinstance(k, Tensor) and isinstance(v, Tensor):
        fused = torch.nn.functional.scaled_dot_product_attention
        return fused(q, k, v, attn_mask=mask, scale=softmax.scale, enable_gqa=True)
    if not isinstance(k, Tensor) and not isinstance(v, Tensor) and q.shape[2] >= _MANY_ROWS:
        masks = [mask] * q.shape[0] if mask is None or mask.shape[0] == 1 else list(mask.split(1))
        each = zip(q.split(1), masks, strict=True)
        parts = [_over(one, k.alone(at), v.alone(at), its, softmax) for at, (one, its) in enumerate(each)]
        return torch.cat(parts)
    heads = k.shape[1]
    grouped = q.unflatten(1, (heads, -1)).transpose(2, 3)  # [b, g, q, h / g, d]
    dots = grouped @ k[:, :, None].transpose(-1, -2) if isinstance(k, Tensor) else k.dots(grouped)
    logits = softmax.logits(dots)
    if mask is not None and mask.dtype == torch.bool:
        logits = logits.masked_fill(~mask[..., None, :], float("-inf"))
    elif mask is not None:
        logits = logits + mask.expand(-1, q.shape[1], -1, -1).unflatten(1, (heads, -1)).transpose(2, 3)
    shares = softmax.weights(logits)
    out = shares @ v[:, :, None] if isinstance(v, Tensor) else v.sums(shares)
    return out.transpose(2, 3).flatten(1, 2)


_BACKENDS = {"gather": _gather, "reference": _reference}
