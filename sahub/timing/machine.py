"""The machine that times were measured on: they mean nothing without it."""

import os
import platform
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

_CPUS = Path("/proc/cpuinfo")


def machine(device: torch.device) -> dict[str, Any]:
    """Its processors, what torch uses of them, and when."""
    return {
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
        "device": device.type,
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "system": f"{platform.system()} {platform.release()}",
        "date": datetime.now(UTC).strftime("%Y-%m-%d"),
    }


def shown(facts: Mapping[str, Any]) -> str:
    """The machine in a line."""
    where = facts["gpu"] or f"{facts['cpu']}, {facts['threads']} of {facts['cores']} cores"
    return f"{where}, torch {facts['torch']}, {facts['date']}"


def cpu_name() -> str:
    """As the system calls it."""
    lines = _CPUS.read_text(encoding="utf-8", errors="replace").splitlines() if _CPUS.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return next(iter(names), "") or platform.processor() or platform.machine()
