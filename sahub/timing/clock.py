"""Clocks and memory: what a piece of work takes of a device."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import torch

Clock = Callable[[], float]  # seconds
_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def clock_of(device: torch.device, threads: int) -> Clock:
    """The clock of work on a device; on a CPU with one thread the thread's own: other work there is not counted."""
    if device.type == "cpu":
        return time.thread_time if threads == 1 else time.perf_counter

    def settled() -> float:
        wait(device)
        return time.perf_counter()

    return settled


def wait(device: torch.device) -> None:
    """Return once a device has done what it was told."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


@dataclass
class Peak:
    """Memory in bytes when a piece of work began, and the most while it ran; None where the system does not say."""

    before: int | None = None
    most: int | None = None

    @property
    def added(self) -> int | None:
        """What the work took more."""
        return None if self.before is None or self.most is None else max(0, self.most - self.before)


@contextmanager
def peak(device: torch.device) -> Iterator[Peak]:
    """Of the GPU by this process, else of the process, where Linux lets it be measured anew."""
    found = Peak()
    if device.type == "cuda":
        found.before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        yield found
        found.most = torch.cuda.max_memory_allocated(device)
        return
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")
        found.before = bytes_held("VmRSS")
    yield found
    if found.before is not None:
        found.most = bytes_held("VmHWM")


def bytes_held(name: str) -> int | None:
    """VmRSS or VmHWM of this process, the bytes it holds or held at most; None where the system does not say."""
    lines = dict(line.split(":", 1) for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines())
    return int(lines[name].split()[0]) * 1024 if name in lines else None
