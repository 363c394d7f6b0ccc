"""Random numbers that are a function of what is drawn for alone, the same on every device."""

import torch
from torch import Tensor

from sahub.attention.call import Call


def noise(call: Call) -> Tensor:
    """Uniform numbers in [0, 1), fp32 [b, h, q, k], the same on every device.

    A function of (seed, example, layer, step, head, the row's number of valid keys, the key's rank among them), so that
    left padding, batch mates and the chunking of the rows do not change them.
    """
    rows = call.rows
    key = 0
    for part in (call.seed, call.example, call.layer, call.step):
        key = _mix_int(key ^ (part & _MASK64))
    heads = torch.arange(call.num_heads, device=rows.device)
    row = _mix(_mix(heads + _signed(key))[None, :, None] ^ rows.counts[:, None])  # [b or 1, h, q]
    rank = rows.before(torch.arange(rows.num_keys, device=rows.device)[None, None])  # [b or 1, q, k]
    bits = _mix(row[..., None] ^ _mix(rank)[:, None])
    uniform = ((bits >> 40) & 0xFFFFFF).float() * 2.0**-24
    return uniform.expand(rows.batch, -1, -1, -1)


_MASK64 = (1 << 64) - 1
_MIX = (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB)  # SplitMix64


def _mix_int(x: int) -> int:
    x = (x + _MIX[0]) & _MASK64
    x = ((x ^ (x >> 30)) * _MIX[1]) & _MASK64
    x = ((x ^ (x >> 27)) * _MIX[2]) & _MASK64
    return x ^ (x >> 31)


def _signed(x: int) -> int:
    return x - (1 << 64) if x >> 63 else x


def _mix(x: Tensor) -> Tensor:
    """`_mix_int` on int64 tensors, whose products wrap the same way."""
    x = x + _signed(_MIX[0])
    x = (x ^ ((x >> 30) & ((1 << 34) - 1))) * _signed(_MIX[1])
    x = (x ^ ((x >> 27) & ((1 << 37) - 1))) * _signed(_MIX[2])
    return x ^ ((x >> 31) & ((1 << 33) - 1))
