"""Random numbers that are a function of what is drawn for alone, the same on every device."""

import torch
from torch import Tensor

from sahub.attention.call import Call
from sahub.attention.rows import at_once, free_to_read
from sahub.compiled.present import at_hand


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
    rank = _mix(rank)[:, None]
    batch = max(row.shape[0], rank.shape[0])
    uniform = torch.empty(batch, call.num_heads, rows.num_rows, rows.num_keys, device=rows.device)
    if free_to_read(uniform) and at_hand():
        from sahub.compiled.drawing import drawing  # takes a second to import

        mixed = (x.contiguous().numpy().view("u8") for x in (row, rank[:, 0]))
        drawing()(*mixed, uniform.numpy())
        return uniform.expand(rows.batch, -1, -1, -1)
    size = max(1, at_once(rows.device, _CACHED_NUMBERS) // (batch * rows.num_rows * rows.num_keys))
    for start in range(0, call.num_heads, size):  # a core's cache holds some heads
        bits = _mixed(row[:, start : start + size, :, None] ^ rank)
        torch.mul(bits.bitwise_right_shift_(40).bitwise_and_(0xFFFFFF), 2.0**-24, out=uniform[:, start : start + size])
    return uniform.expand(rows.batch, -1, -1, -1)


_MASK64 = (1 << 64) - 1
_CACHED_NUMBERS = 1 << 16  # 0.5 MB
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
    return _mixed(x.clone())


def _mixed(x: Tensor) -> Tensor:
    """The same in place."""
    x.add_(_signed(_MIX[0]))
    part = torch.empty_like(x)
    for shift, factor in ((30, _signed(_MIX[1])), (27, _signed(_MIX[2])), (31, 1)):
        torch.bitwise_right_shift(x, shift, out=part).bitwise_and_((1 << (64 - shift)) - 1)
        x.bitwise_xor_(part)
        if factor != 1:
            x.mul_(factor)
    return x
