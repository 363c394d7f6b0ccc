"""A method that goes wrong in every way that a method can, as another package would bring it."""

import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from sahub.attention.call import Call
from sahub.attention.selection import Selection
from sahub.attention.stage import Index, Stage
from sahub.methods.local import Local


@dataclass(frozen=True, kw_only=True)
class Nasty(Stage):
    """A sliding window, unless `mode` says something else; `seconds` are slept in every call of the mode's kind."""

    mode: str = "fine"
    window_size: int = 24
    seconds: float = 0.0

    def add(self, call: Call, taken: Selection, index: Index | None) -> Selection:
        """The most recent keys, after what happens."""
        self._happen(decoding=call.q.shape[2] == 1)
        if self.mode == "raise_at_5_percent" and call.density == 0.05:
            raise ValueError("broken on purpose")
        chosen = Local(window_size=self.window_size).add(call, taken, index)
        if self.mode == "no_number":  # two infinite weights make a softmax that is no number
            return taken.of(chosen.slots, torch.full_like(chosen.weights, float("inf")))
        return chosen

    def _happen(self, *, decoding: bool) -> None:
        if (self.mode == "slow_steps" and decoding) or self.mode == "slow":
            time.sleep(self.seconds)
        if notes := os.environ.get("NASTY_NOTES"):  # who works, and when
            with Path(notes).open("a", encoding="utf-8") as file:
                file.write(f"{os.getpid()} {time.time()}\n")
        if self.mode == "raise":
            raise ValueError("broken on purpose\nand its second line")
        if self.mode == "memory":
            raise MemoryError("simulated")
        if self.mode == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
