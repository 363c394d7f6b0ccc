"""What a stack made of its requests: answers, micro rows, and how it ended."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from sahub import measures
from sahub.attention.call import Geometry
from sahub.engine.session import Attention
from sahub.errors import RunError


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One question answered: what `raw_results.csv` has a line for."""

    example_id: str
    question_id: str
    question: str
    answer: str
    references: tuple[str, ...]
    metadata: Mapping[str, Any] = field(default_factory=dict)  # what its benchmark groups by
    score: float | None
    measures: Mapping[str, float]  # of this answer, by name
    n_context: int
    n_new: int
    seconds: float
    gold: Mapping[str, Any] | None = None  # of a loss: which heads dropped the gold answer, see sahub.engine.gold


@dataclass
class Outcome:
    """One stack over the requests: `complete` with answers and micro rows, or `failed` with a reason."""

    attention: Attention
    state: str = "complete"
    reason: str = ""
    details: str = ""  # a traceback, for the file beside the trial
    seconds: float = 0.0
    answers: list[Answer] = field(default_factory=list)
    micro: list[dict[str, Any]] = field(default_factory=list)
    num_keys: int = 0  # of the shortest context
    aux_bits: float = 0.0
    geometry: Geometry | None = None  # of the model
    key_bytes: int = 0  # of a key with its value, of one KV head

    def measures(self) -> dict[str, float]:
        """Every measure that was taken, and what the stack costs; densities are weighted by rows. Raises RunError."""
        found = {
            **measures.of_run(self),
            "density": weighted(self.micro, "density"),
            "density_all_layers": self._over_all_layers(weighted(self.micro, "density")),
            "kv_density": weighted(self.micro, "kv_density"),
            "aux_bits": self.aux_bits,
        }
        found["bytes_per_step"] = bytes_per_step(
            fmean(answer.n_context for answer in self.answers), found["kv_density"], self.aux_bits, self.key_bytes
        )
        bad = [f"{name} is {number}" for name, number in found.items() if not math.isfinite(number)]
        if bad:
            raise RunError(f"not a finite number: {', '.join(bad)}")
        return found

    @property
    def num_layers(self) -> int:
        """Layers of the model, of every kind."""
        return 0 if self.geometry is None else self.geometry.num_layers

    def _over_all_layers(self, density: float) -> float:
        """The density over all layers with keys: layers that stay dense count as 1, windows as what they hold."""
        assert self.geometry is not None
        full, windows = len(self.geometry.layers), self.geometry.windows
        num_keys = fmean(answer.n_context for answer in self.answers)
        sparse = full - len(self.attention.dense_layers)  # also those that a trace leaves out
        others = full - sparse + sum(min(1.0, window / num_keys) for window in windows)
        return (density * sparse + others) / (full + len(windows))

    @property
    def sparse_layers(self) -> int:
        """Layers that the densities are means over."""
        return len({row["layer"] for row in self.micro})


def bytes_per_step(num_keys: float, kv_density: float, aux_bits: float, key_bytes: int) -> float:
    """Bytes that one decode step reads, per sequence, sparse layer and KV head, over num_keys keys.

    bytes = num_keys * kv_density * key_bytes + num_keys * aux_bits / 8

    kv_density  share of the keys that some query head of the KV head attends to: what a kernel loads
    aux_bits    index bits read per key and KV head
    key_bytes   bytes of a key with its value in the model's dtype, (d + dv) * bytes an element; dense reads all of them
    """
    return num_keys * (kv_density * key_bytes + aux_bits / 8)


def weighted(micro: Sequence[Mapping[str, Any]], name: str) -> float:
    """Mean of a column of micro rows, weighted by the attention rows that each stands for."""
    rows = sum(row["rows"] for row in micro)
    return float(sum(row[name] * row["rows"] for row in micro) / rows)


def joined(attentions: Sequence[Attention], parts: Sequence[Sequence[Outcome]], timeout_s: float) -> list[Outcome]:
    """One outcome per stack, as if its requests had run one after the other."""
    found = []
    for number, attention in enumerate(attentions):
        whole = Outcome(attention=attention)
        for part in (each[number] for each in parts):
            whole.geometry = part.geometry or whole.geometry
            whole.key_bytes = part.key_bytes or whole.key_bytes
            whole.num_keys = min(whole.num_keys or part.num_keys, part.num_keys or whole.num_keys)
            whole.aux_bits = max(whole.aux_bits, part.aux_bits)
            whole.seconds += part.seconds
            whole.answers += part.answers
            whole.micro += part.micro
            if part.state != "complete":
                whole.state, whole.reason, whole.details = part.state, part.reason, part.details
                break
        if whole.state == "complete" and whole.seconds > timeout_s:
            whole.state, whole.reason = "failed", out_of_time(timeout_s)
        found.append(whole)
    return found


def out_of_time(timeout_s: float, where: str = "") -> str:
    """The reason of a stack that reached its time limit."""
    return f"timeout: longer than {timeout_s:g} s{f' ({where})' if where else ''}"


def failed(attention: Attention, reason: str) -> Outcome:
    """The outcome of a stack that was lost."""
    return Outcome(attention=attention, state="failed", reason=reason)
