"""What a model costs on this machine: time and memory per thousand tokens, and the longest context that would fit."""

import os
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import torch

from sahub.doctor.report import Rows, bytes_text
from sahub.doctor.selfcheck import endless
from sahub.engine.contexts.prefill import prefill
from sahub.engine.model import Model
from sahub.engine.session import Attention
from sahub.timing.clock import wait
from sahub.timing.filled import prompt

DECODED = 16  # tokens that decoding is timed on
USABLE = 0.9  # share of the free memory that a context may fill
T = TypeVar("T")


def costs(model: Model, attention: Attention, tokens: int) -> dict[str, Any]:
    """Measure on a text of `tokens` tokens, or as many as the model reads; the best of a few repeats within seconds."""
    ids = prompt(model, max(1, min(tokens, model.max_context_length - DECODED - 1)))
    room = DECODED + 1
    chunk = torch.tensor([ids], device=model.device)
    seconds, prefix = _best(model.device, lambda: prefill(model.hf, chunk, room=room))
    session, last = endless(model), [ids[-1]]

    def decode(how: Attention) -> float:
        return _best(model.device, lambda: session.generate(prefix, last, how, max_new_tokens=DECODED))[0]

    per_token = prefix.buffered // (len(ids) + room)
    fixed = prefix.nbytes - prefix.buffered
    free = free_bytes(model.device)
    fits = None if free is None else max(0, int((USABLE * free - fixed) / per_token))
    return {
        "tokens": len(ids),
        "prefill_seconds_per_1k_tokens": seconds / len(ids) * 1000,
        "decode_ms_per_token": decode(Attention()) / DECODED * 1000,
        "sparse_decode_ms_per_token": decode(attention) / DECODED * 1000,
        "kv_bytes_per_1k_tokens": per_token * 1000,
        "fixed_bytes": fixed,
        "peak_bytes": peak_bytes(model.device),
        "free_bytes": free,
        "fits_tokens": fits,
        "largest_context_tokens": min(model.max_context_length, model.max_context_length if fits is None else fits),
        "threads": torch.get_num_threads(),
        "device": _device_name(model.device),
    }


def rows(facts: dict[str, Any], builder: str) -> Rows:
    """The costs for people."""
    free = "unknown" if facts["free_bytes"] is None else bytes_text(facts["free_bytes"])
    fits = "unknown" if facts["fits_tokens"] is None else f"{facts['fits_tokens']:,} tokens"
    dense, sparse = facts["decode_ms_per_token"], facts["sparse_decode_ms_per_token"]
    longest = facts["largest_context_tokens"]
    held = facts["fixed_bytes"]
    fixed = f", and {bytes_text(held)} of windows and states whatever the length" if held else ""
    return [
        ("measured on", f"{facts['device']}, {facts['threads']} threads, a text of {facts['tokens']:,} tokens"),
        ("prefill", f"{facts['prefill_seconds_per_1k_tokens']:.3g} s per 1,000 tokens"),
        ("decoding", f"{dense:.3g} ms per token; with {builder} {sparse:.3g} ms"),
        ("keys and values", f"{bytes_text(facts['kv_bytes_per_1k_tokens'])} per 1,000 tokens{fixed}"),
        ("memory", f"{bytes_text(facts['peak_bytes'])} at most in use so far, {free} free"),
        ("would fit", f"{fits} in {100 * USABLE:.0f} % of what is free; the model reads {longest:,} at most here"),
    ]


def _best(device: torch.device, work: Callable[[], T], *, seconds: float = 2.0, most: int = 3) -> tuple[float, T]:
    """The shortest time of up to `most` repeats after a first one, within `seconds`; and a result."""
    taken: list[float] = []
    while True:
        wait(device)
        begin = time.perf_counter()
        result = work()
        wait(device)
        taken.append(time.perf_counter() - begin)
        if sum(taken) > seconds or len(taken) > most:
            return min(taken), result


def peak_bytes(device: torch.device) -> int:
    """The most memory that was in use: of the GPU by this process, else of the process."""
    if device.type == "cuda":
        return int(torch.cuda.max_memory_allocated(device))
    unit = 1 if sys.platform == "darwin" else 1024  # kilobytes, except on macOS
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def free_bytes(device: torch.device) -> int | None:
    """Memory that a longer context could take; None where the system does not say."""
    if device.type == "cuda":
        unused = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + unused
    found = [_available(), _left_in_group()]
    known = [count for count in found if count is not None]
    return min(known) if known else None


def _available() -> int | None:
    """What the system could give without swapping."""
    file = Path("/proc/meminfo")
    if file.is_file():
        lines = dict(line.split(":", 1) for line in file.read_text(encoding="ascii").splitlines())
        return int(lines["MemAvailable"].split()[0]) * 1024
    if "SC_AVPHYS_PAGES" in os.sysconf_names:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return None


def _left_in_group() -> int | None:
    """What a container's limit leaves."""
    group = Path("/sys/fs/cgroup")
    limit, used = group / "memory.max", group / "memory.current"
    if not (limit.is_file() and used.is_file()) or limit.read_text(encoding="ascii").strip() == "max":
        return None
    return max(0, int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii")))


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
